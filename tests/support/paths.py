"""Paths of the repository and of the tests' data."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Root of the repository."""

DATA = ROOT / "tests" / "data"
"""Folder of the files that tests read."""
