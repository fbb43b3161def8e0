"""Location of the JavaScript modules that both pages import."""

from __future__ import annotations

from pathlib import Path

SHARED_MODULES = Path(__file__).resolve().parent / "page"
"""Folder that both servers serve as ``shared/``, beside their own scripts."""
