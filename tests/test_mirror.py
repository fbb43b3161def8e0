"""The folders of tests mirror the packages that they test."""

from __future__ import annotations

from pathlib import Path

from tests.support.paths import ROOT

PACKAGE, TESTS = ROOT / "zsic_index", ROOT / "tests"

WHOLE = {"docs", "exports", "imports", "mirror", "wheel", "words"}
"""Subjects of the test modules about the repository as a whole."""


def packages() -> set[Path]:
    """Return the packages within zsic_index, relative to it."""
    return {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")}


def test_every_test_module_lies_beside_what_it_tests() -> None:
    for path in TESTS.rglob("test_*.py"):
        folder, subject = path.parent.relative_to(TESTS), path.stem.removeprefix("test_")
        assert folder in packages(), f"{path} tests no package"
        if folder == Path():
            module = (PACKAGE / f"{subject}.py").exists()
            assert module or subject in WHOLE, f"{path} belongs into the folder of its package"


def test_every_package_has_tests() -> None:
    for package in packages():
        if len(package.parts) == 1:
            assert list((TESTS / package).rglob("test_*.py")), f"{package} has no tests"


def test_helpers_and_tools_are_no_tests() -> None:
    helpers = {path for name in ("support", "tools") for path in (TESTS / name).rglob("*.py")}
    assert not [path for path in helpers if path.name.startswith("test_")]
    others = {path for path in TESTS.rglob("*.py") if not path.name.startswith("test_")} - helpers
    assert {path.relative_to(TESTS).name for path in others} == {"__init__.py", "conftest.py"}
