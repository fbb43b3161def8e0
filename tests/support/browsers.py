"""Real browsers, where there are any."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def chromium() -> str:
    """Return the program of a Chromium; a test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here")
    return found


def in_a_browser(page: str, tmp_path: Path) -> str:
    """Return what a real browser makes of a page: its DOM, after scripts have run."""
    browser = chromium()
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}", file.as_uri(),
    ]  # fmt: skip
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"Chromium does not start here: {error}")
    return shown.stdout
