"""Photo libraries for tests: real pictures that the built-in model knows, an index, a runner."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from zsic_index import LabelIndex, builtin
from zsic_index.library.run_report import PhotoChange, RunReport
from zsic_index.library.run_settings import RunSettings
from zsic_index.library.tag_rules import TagSettings
from zsic_index.library.tagging import Tagging
from zsic_index.querying.thresholds import Thresholds
from zsic_index.store import Store

TAXONOMY = """\
animals
    mammals
        dog face
        lion
    octopus
    frog
food
    red apple
    pizza
vehicles
    automobile
umbrella
"""

OTHER_TAXONOMY = """\
things that breathe
    dog face
    frog
    spouting whale
things that do not
    pizza
    automobile
"""

SAMPLES = {path.stem.split("-", 1)[1]: path for path in builtin.samples()}
"""Paths of the package's sample pictures by their subject, such as ``dog-face``."""


def build(folder: Path, text: str = TAXONOMY, name: str = "things") -> None:
    """Build an index in the default store."""
    file = folder / f"{name}.txt"
    file.write_text(text, encoding="utf-8")
    LabelIndex.build(file, model="builtin:clip", name=name).close()


def put(root: Path, *names: str, variant: int = 0, suffix: str = ".jpg") -> list[Path]:
    """Save sample pictures below a root, ``folder/dog-face`` as ``folder/dog-face.jpg``."""
    made = []
    for name in names:
        target = root / f"{name}{f'-{variant}' if variant else ''}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(SAMPLES[Path(name).name]) as image:
            picture = image.convert("RGB").resize((160 + variant, 160 + variant))
            picture.save(target, quality=92)
        made.append(target)
    return made


@dataclass
class Ran:
    """A run's report and the changes it announced."""

    report: RunReport
    changes: list[PhotoChange] = field(default_factory=list)

    @property
    def counts(self) -> Mapping[str, int]:
        counts = self.report.counts
        assert counts["inputs"] == counts["done"] + counts["refused"] + counts["skipped"]
        assert counts["done"] == sum(
            counts[how] for how in ("embedded", "reused", "unchanged", "paired")
        )
        return counts


def tag(
    root: Path | Iterable[Path],
    *,
    name: str = "things",
    threshold: float = 0.5,
    dry_run: bool = False,
    tags: TagSettings | None = None,
    **options: Any,
) -> Ran:
    """Run ``tag`` in this process."""
    roots = [root] if isinstance(root, Path) else list(root)
    with LabelIndex.open(name, keep_images=True, decode="scaled") as index:
        settings = RunSettings(
            tuple(map(str, roots)),
            tags=tags or TagSettings(),
            thresholds=Thresholds(threshold),
            **options,
        )
        changes: list[PhotoChange] = []
        run = Tagging(settings.rules(index), settings, dry_run=dry_run, on_change=changes.append)
        return Ran(run.run(), changes)


def leaves(path: Path) -> list[str]:
    """Return the last parts of a photo's tags in the store, most probable first."""
    return [tag[-1] for tag in tag_paths(path)]


def tag_paths(path: Path) -> list[tuple[str, ...]]:
    """Return a photo's tags in the store, most probable first."""
    with Store.open() as store:
        photo = store.photos.find(*os.path.split(path))
        assert photo is not None, path
        return [tag.path for tag in store.tags.find([photo.photo_id])[photo.photo_id]]


def state(root: Path) -> dict[str, tuple[str, int]]:
    """Return sha256 and mtime of every file below a root."""
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
