"""Emoji concepts: their names, and the choice of those that are never trained on."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsic_index.builtin.train import npm
from zsic_index.builtin.train.samples import SAMPLE_LABELS

LANGUAGES = ("de", "fr", "es", "ja", "it", "pt", "zh")
HELD_OUT = 83
_SALT = "zsic-index"
_SHORTCODES = ("cldr", "github", "joypixels", "iamcal")

# Mirrored, a drawing of these subgroups means something else (an arrow, a clock, a letter).
_CHIRAL_SUBGROUPS = re.compile(
    r"^(arrow|time|hand.*|transport-sign|keycap|alphanum|punctuation|math|currency|av-symbol|"
    r"zodiac|religion|gender|music|other-symbol|flag|warning|geometric)$"
)
_CHIRAL_WORDS = re.compile(r"\b(left|right|facing|clockwise|tilted|waxing|waning|quarter)\b")


@dataclass(frozen=True)
class Concept:
    """One emoji with all its names.

    ``trained`` is false for the concepts held out to measure the models on unseen ones.
    """

    id: str
    emoji: str
    label: str
    group: str
    subgroup: str
    aliases: tuple[str, ...]
    keywords: tuple[str, ...]
    trained: bool
    translations: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def chiral(self) -> bool:
        """Whether mirroring or turning could make it another concept."""
        return bool(
            _CHIRAL_SUBGROUPS.match(self.subgroup) or _CHIRAL_WORDS.search(self.label.lower())
        )


def load(cache: Path) -> list[Concept]:
    """Read the concepts from the npm packages, in the order of Unicode."""
    meta = npm.read(cache, "emojibase-data", "meta/groups.json")
    entries = [
        entry
        for entry in npm.read(cache, "emojibase-data", "en/data.json")
        if _is_concept(entry, meta)
    ]
    entries.sort(key=lambda entry: int(entry["order"]))
    with_drawing = _drawn(cache)
    entries = [entry for entry in entries if strip_selectors(entry["hexcode"]) in with_drawing]
    aliases = _aliases(cache, entries)
    extra = npm.read(cache, "emojilib", "dist/emoji-en-US.json")
    translations = {
        language: {
            row["hexcode"]: row["label"]
            for row in npm.read(cache, "emojibase-data", f"{language}/data.json")
        }
        for language in LANGUAGES
    }
    held_out = _held_out(entries)
    return [
        Concept(
            id=entry["hexcode"],
            emoji=entry["emoji"],
            label=entry["label"],
            group=meta["groups"][str(entry["group"])],
            subgroup=meta["subgroups"][str(entry["subgroup"])],
            aliases=aliases[entry["hexcode"]],
            keywords=_keywords(entry, extra),
            trained=entry["hexcode"] not in held_out,
            translations={
                language: names.get(entry["hexcode"], "")
                for language, names in translations.items()
            },
        )
        for entry in entries
    ]


def strip_selectors(hexcode: str) -> str:
    """Return a code in lower case without variation selectors, as the drawing sets write it."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def to_csv(concepts: Iterable[Concept]) -> str:
    """Return the label list that ships with the models, as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    languages = [f"lang:{language}" for language in LANGUAGES]
    writer.writerow(["id", "label", "group", "subgroup", "other_names", "trained", *languages])
    for concept in concepts:
        writer.writerow(
            [
                concept.id,
                concept.label,
                concept.group,
                concept.subgroup,
                "|".join(concept.aliases),
                "yes" if concept.trained else "no",
                *(concept.translations[language] for language in LANGUAGES),
            ]
        )
    return buffer.getvalue()


def _is_concept(entry: dict[str, Any], meta: dict[str, Any]) -> bool:
    group = entry.get("group")
    if group is None or meta["groups"][str(group)] == "component":
        return False
    if meta["subgroups"][str(entry["subgroup"])] in ("country-flag", "subdivision-flag"):
        return False
    return not entry["label"].startswith("family: ")


def _drawn(cache: Path) -> set[str]:
    """Return the codes in both complete sets, so that each concept has at least two drawings."""
    noto, twemoji = (
        set(npm.read(cache, f"@iconify-json/{name}", "chars.json")) for name in ("noto", "twemoji")
    )
    return noto & twemoji


def _held_out(entries: list[dict[str, Any]]) -> set[str]:
    """Choose the held-out concepts by a hash of their codes, so reproducibly and at random."""
    eligible = [entry["hexcode"] for entry in entries if entry["label"] not in SAMPLE_LABELS]
    ranked = sorted(eligible, key=lambda code: hashlib.sha256(f"{_SALT}:{code}".encode()).digest())
    return set(ranked[:HELD_OUT])


def _aliases(cache: Path, entries: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return other names by code, without those that several concepts share."""
    tables = [
        npm.read(cache, "emojibase-data", f"en/shortcodes/{name}.json") for name in _SHORTCODES
    ]
    names: dict[str, list[str]] = {}
    for entry in entries:
        code = entry["hexcode"]
        raw_names: list[str] = []
        if len(strip_selectors(code).split("-")) == 1:
            raw_names.append(unicodedata.name(chr(int(strip_selectors(code), 16)), "").lower())
        for table in tables:
            value = table.get(code, [])
            raw_names += [value] if isinstance(value, str) else value
        readable = [name.replace("_", " ").replace("-", " ").strip() for name in raw_names]
        names[code] = [
            name for name in dict.fromkeys(readable) if re.match(r"^[a-z][a-z ]+$", name)
        ]
    uses = Counter(name for group in names.values() for name in group)
    labels = {entry["label"].lower().replace("-", " ") for entry in entries}
    return {
        code: tuple(name for name in group if uses[name] == 1 and name not in labels)
        for code, group in names.items()
    }


def _keywords(entry: dict[str, Any], extra: dict[str, list[str]]) -> tuple[str, ...]:
    words = [*entry.get("tags", []), *extra.get(entry["emoji"], [])]
    clean = [str(word).replace("_", " ").lower() for word in words]
    return tuple(word for word in dict.fromkeys(clean) if re.match(r"^[a-z][a-z' -]+$", word))
