"""npm packages with the drawings and the names, fetched into a cache folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import click

# Pinned, so that a later run gets the same drawings and names.
PACKAGES: dict[str, str] = {
    "emojibase-data": "17.0.0",
    "emojilib": "4.0.3",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/fluent-emoji-high-contrast": "1.2.6",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/emojione-monotone": "1.2.1",
    "@iconify-json/streamline-emojis": "1.2.4",
    "@iconify-json/openmoji": "1.2.29",
    "@iconify-json/emojione-v1": "1.2.3",
}


def fetch(cache: Path) -> None:
    """Install the pinned packages that are missing in ``cache/npm``."""
    folder = cache / "npm"
    missing = [
        f"{name}@{version}"
        for name, version in PACKAGES.items()
        if _installed_version(folder, name) != version
    ]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").touch()
    if not (folder / "package.json").read_text():
        (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *missing]
    try:
        subprocess.run(command, cwd=folder, check=True)
    except FileNotFoundError as error:
        raise click.ClickException(
            "npm is not on the PATH; it is needed to fetch the drawings"
        ) from error
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"npm could not fetch {', '.join(missing)}") from error


def read(cache: Path, package: str, file: str) -> Any:
    """Return the parsed JSON of a file in a package."""
    path = cache / "npm" / "node_modules" / package / file
    return json.loads(path.read_text(encoding="utf-8"))


def has(cache: Path, package: str, file: str) -> bool:
    """Return whether a package has a file."""
    return (cache / "npm" / "node_modules" / package / file).exists()


def _installed_version(folder: Path, name: str) -> str | None:
    manifest = folder / "node_modules" / name / "package.json"
    if not manifest.exists():
        return None
    version = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    return str(version)
