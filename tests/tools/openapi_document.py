"""The service's OpenAPI document without its texts, as clients depend on it.

``python -m tests.tools.openapi_document`` prints it, one line per path and component. The file
tests/data/openapi.json is what it printed for a released version.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.support.openapi import TEXTS
from zsic_index.service.app import create_app
from zsic_index.service.settings import Settings
from zsic_index.store import Store


def openapi_document(store: Path) -> dict[str, Any]:
    """Return the document of a service with the given store."""
    return create_app(Settings(store=store)).openapi()


def without_texts(part: Any) -> Any:
    if isinstance(part, dict):
        return {
            key: without_texts(value)
            for key, value in part.items()
            if key not in TEXTS or isinstance(value, dict)
        }
    return [without_texts(entry) for entry in part] if isinstance(part, list) else part


def dump(document: dict[str, Any]) -> str:
    sections = []
    for keys in (("paths",), ("components", "schemas")):
        section = document
        for key in keys:
            section = section[key]
        lines = [
            f"  {json.dumps(name)}: {json.dumps(without_texts(value), sort_keys=True)}"
            for name, value in sorted(section.items())
        ]
        opening = "".join(f"{json.dumps(key)}: {{" for key in keys)
        sections.append(f" {opening}\n" + ",\n".join(lines) + "\n " + "}" * len(keys))
    return "{\n" + ",\n".join(sections) + "\n}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.db"
        Store.open(store, create=True).close()
        print(dump(openapi_document(store)))


if __name__ == "__main__":
    main()
