"""A run that is killed at any moment and run again ends where an uninterrupted one does."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support.libraries import SAMPLES, build, put, tag
from tests.support.paths import DATA
from tests.support.processes import Processes, finish
from tests.support.tag_kills import kill_and_resume
from zsic_index.library.undo import undo
from zsic_index.store import Store

NUMBER = re.compile(r"\d\.\d{6}")
"""A probability in a ledger. It may differ in its last digits: other photos were in the batch."""

RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def described(root: Path, store: Path) -> tuple[dict[str, Any], dict[str, Any], list[float]]:
    """Return the sidecars and the store without run ids and probabilities; these apart."""
    sidecars, probabilities = {}, []
    for path in sorted(root.rglob("*.xmp")):
        text = RUN.sub("RUN", path.read_text(encoding="utf-8"))
        probabilities += list(map(float, NUMBER.findall(text)))
        sidecars[str(path.relative_to(root))] = NUMBER.sub("P", text)
    with sqlite3.connect(store) as connection:
        tables = {
            "photo": connection.execute(
                "SELECT name, size, content_hash, problem, missing_since, tags_digest "
                "FROM photo ORDER BY folder, name"
            ).fetchall(),
            "tag": connection.execute(
                "SELECT photo.name, photo_tag.path, label_id, written_by = run_id FROM photo_tag "
                "JOIN photo ON photo.id = photo_id ORDER BY photo.folder, photo.name, path"
            ).fetchall(),
            "sidecar": connection.execute(
                "SELECT photo.name, sidecar_for, sidecar.tags_digest, intent FROM sidecar "
                "JOIN photo ON photo.id = photo_id ORDER BY sidecar.path"
            ).fetchall(),
            "decision": connection.execute("SELECT count(*) FROM photo_decision").fetchall(),
            "run": connection.execute(
                "SELECT state, json_extract(counts, '$.inputs'), json_extract(counts, '$.done') "
                "FROM tag_run"
            ).fetchall(),
            "embedding": connection.execute("SELECT count(*) FROM embedding").fetchall(),
            "integrity": connection.execute("PRAGMA integrity_check").fetchall(),
        }
        probabilities += [
            row[0]
            for row in connection.execute(
                "SELECT probability FROM photo_tag JOIN photo ON photo.id = photo_id "
                "ORDER BY photo.folder, photo.name, path"
            )
        ]
    return sidecars, tables, probabilities


def campaign(
    processes: Processes,
    tmp_path: Path,
    store: Path,
    *,
    photos: int,
    kills: int,
    share: float,
    seed: int,
) -> int:
    """Kill runs over a library; compare every end with an uninterrupted run's; return rounds."""
    build(tmp_path)
    root = tmp_path / "photos"
    names = sorted(SAMPLES)
    shapes = sorted((DATA / "sidecars").glob("[!u]*.xmp"))  # in UTF-8
    for number in range(photos):
        name = names[number % len(names)]
        (photo,) = put(root, f"{number % 7}/{name}", variant=1 + number)
        # Every third has a sidecar of another program.
        if number % 3 == 0:
            shutil.copy(shapes[number % len(shapes)], f"{photo}.xmp")
    originals = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for path in (root, store, Path(f"{store}.indexes")):
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, f"{path}.fresh")
    tag(root, write="sidecar")
    expected = described(root, store)
    assert expected[1]["integrity"] == [("ok",)]
    finish(processes.start(kill_and_resume, root, kills, share, seed), seconds=7_000)
    rounds = Path(f"{root}.rounds").read_text(encoding="utf-8").splitlines()
    assert int(rounds[-1]) >= kills
    for number in range(1, len(rounds) + 1):
        found = described(Path(f"{root}.{number}"), Path(f"{store}.{number}"))
        assert found[0].keys() == expected[0].keys()
        for name, text in found[0].items():
            assert text == expected[0][name], name
        assert found[1] == expected[1]
        assert found[2] == pytest.approx(expected[2], abs=2e-6)
    # What was written in pieces can be taken back whole.
    with Store.open() as opened:
        undo(opened, opened.tags.find_keys())
    left = {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".zsic-")
    }
    assert left == originals
    return len(rounds)


def test_a_few_kills(processes: Processes, tmp_path: Path, store: Path) -> None:
    campaign(processes, tmp_path, store, photos=100, kills=6, share=1.0, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_kills_over_two_thousand_photos(
    processes: Processes, tmp_path: Path, store: Path
) -> None:
    rounds = campaign(processes, tmp_path, store, photos=2_000, kills=200, share=0.25, seed=2)
    print(f"{rounds} runs came to their end")
