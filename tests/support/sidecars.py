"""Sidecars for tests: shapes of other programs, and lxml as a second reader."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.support.paths import DATA
from zsic_index.library.sidecars.keywords import PROPERTIES, Tag
from zsic_index.library.sidecars.ledger import Origin
from zsic_index.library.sidecars.merge import MergedSidecar
from zsic_index.library.sidecars.record import SidecarRecord

SHAPE_FOLDER = DATA / "sidecars"
SHAPES = sorted(SHAPE_FOLDER.glob("*.xmp"))
REFUSED = sorted((SHAPE_FOLDER / "refused").glob("*.xmp"))

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
LEDGER = "{urn:x-zsic-index:ledger/1.0/}"
ORIGIN = Origin(run="run-1", model="openai/clip", taxonomy="everyday")

TAGS = (
    Tag(("ai", "animal", "dog"), 7, 0.93),
    Tag(("ai", "music", "AC/DC"), 8, 0.5),
    Tag(("ai", 'R&D <"1">'), 9, 0.25),
)
OTHER_TAGS = (Tag(("ai", "things", "tram"), 1, 0.8), Tag(("ai", "animal", "dog"), 2, 0.7))

MERGED = {
    "digiKam:TagsList": ["ai/animal/dog", "ai/music/AC∕DC", 'ai/R&D <"1">'],
    "lr:hierarchicalSubject": ["ai|animal|dog", "ai|music|AC∕DC", 'ai|R&D <"1">'],
    "dc:subject": ["dog", "AC∕DC", 'R&D <"1">'],
}

needs_exiftool = pytest.mark.skipif(
    not shutil.which("exiftool"), reason="exiftool is not installed (libimage-exiftool-perl)"
)
needs_exiv2 = pytest.mark.skipif(not shutil.which("exiv2"), reason="exiv2 is not installed")


def shape(name: str, folder: Path) -> Path:
    return Path(shutil.copy(SHAPE_FOLDER / f"{name}.xmp", folder / "photo.jpg.xmp"))


def state(path: Path) -> tuple[int, ...]:
    """Return the fields of a file's status that change when it is written to or replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def again(merged: MergedSidecar) -> SidecarRecord | None:
    """Return the record as it comes back from a store."""
    return merged.record and SidecarRecord.from_json(merged.record.to_json())


# What lxml says is in a file.


def clark(uri: str, local: str) -> str:
    return f"{{{uri}}}{local}"


NAMES = {clark(kind.uri, kind.local): kind.name for kind in PROPERTIES} | {
    "{http://ns.microsoft.com/photo/1.0}LastKeywordXMP": "MicrosoftPhoto:LastKeywordXMP"
}


def tree(content: bytes) -> Any:
    return etree.fromstring(content, etree.XMLParser(resolve_entities=False, huge_tree=True))


def keywords(content: bytes) -> dict[str, list[str]]:
    values_by_name: dict[str, list[str]] = {}
    for description in tree(content).iter(f"{RDF}Description"):
        if description.getparent().tag != f"{RDF}RDF":
            continue
        for name, value in description.attrib.items():
            if name in NAMES:
                values_by_name.setdefault(NAMES[name], []).append(value)
        for held in description:
            if held.tag in NAMES:
                items = held.findall(f"*/{RDF}li")
                texts = [
                    "".join((item.find(f"{RDF}value") if len(item) else item).itertext())
                    for item in items
                ] or ["".join(held.itertext())]
                values_by_name.setdefault(NAMES[held.tag], []).extend(texts)
    stripped = {
        name: [v.strip() for v in values if v.strip()] for name, values in values_by_name.items()
    }
    return {name: values for name, values in stripped.items() if values}


def rest(content: bytes) -> bytes:
    """Return a file without keywords and our ledger, in canonical form, text stripped."""
    root = tree(content)
    for description in list(root.iter(f"{RDF}Description")):
        if description.getparent().tag != f"{RDF}RDF":
            continue
        for name in list(description.attrib):
            if name in NAMES or name.startswith(LEDGER):
                del description.attrib[name]
        for held in list(description):
            if isinstance(held.tag, str) and (held.tag in NAMES or held.tag.startswith(LEDGER)):
                description.remove(held)
        if not len(description) and not set(description.attrib) - {f"{RDF}about", "about"}:
            description.getparent().remove(description)
    etree.cleanup_namespaces(root)
    return etree.tostring(root, method="c14n2", strip_text=True)
