"""The wheel, unpacked away from the source tree: everything that is needed is in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=200,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> str:
    """Run the command line of the unpacked wheel, whatever else is installed."""
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import zsic_index; assert zsic_index.__file__.startswith(sys.path[0])\n"
        f"from zsic_index.cli import main; main({list(arguments)!r}, prog_name='zsic-index')"
    )
    finished = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_db_upgrade(unpacked: Path, tmp_path: Path) -> None:
    assert "schema (empty) -> " in run(unpacked, tmp_path, "db", "upgrade")


def test_demo(unpacked: Path, tmp_path: Path) -> None:
    assert "1,623 labels: 1,623 encoded" in run(unpacked, tmp_path, "demo")
    assert (tmp_path / "zsic-index-demo.html").exists()


@pytest.mark.parametrize(
    "folder", ["formats/templates", "library/review/page", "service/page", "web/page"]
)
def test_the_files_of_pages_are_in_it(unpacked: Path, folder: str) -> None:
    packed = {path.name: path.read_bytes() for path in (unpacked / "zsic_index" / folder).iterdir()}
    source = {path.name: path.read_bytes() for path in (ROOT / "zsic_index" / folder).iterdir()}
    assert packed == source
    assert all(packed.values())


def test_licences_and_card_are_in_it(unpacked: Path) -> None:
    room = unpacked / "zsic_index" / "builtin"
    for name in ("MODEL_CARD.md", "NOTICE.md", "evaluation.json", "emoji.csv"):
        assert (room / name).stat().st_size > 0
    assert list((room / "LICENSES").iterdir())
    assert (unpacked / "zsic_index" / "py.typed").exists()
