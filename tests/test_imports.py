"""Layers of the package, and the imports of a bare command line."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import zsic_index

ROOT = Path(zsic_index.__file__).parent

# From the bottom up: a module may import from rows above its own, and from its own package.
LAYERS = (
    ("errors", "records", "parallel"),
    ("embedding_arrays", "prompts", "images", "formats", "web"),
    ("taxonomy", "scan", "builtin"),
    ("calibration", "encoders", "store"),
    ("index_files", "embeddings"),
    ("label_index",),
    ("querying", "evaluation", "pipeline", "demo"),
    ("client", "library", "decider", "evaluator"),
    ("service", "bench"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

HEAVY = ("torch", "transformers", "faiss", "sqlalchemy", "alembic", "fastapi", "numpy", "PIL",
         "_pi_heif", "rawpy", "jinja2")  # fmt: skip


def imported(path: Path) -> set[str]:
    """The zsic_index modules that a file imports anywhere, functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "zsic_index":
            names |= {alias.name for alias in node.names if (ROOT / f"{alias.name}.py").exists()
                      or (ROOT / alias.name).is_dir()}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zsic_index."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("zsic_index.")}
    return names


MODULES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if "train" not in path.relative_to(ROOT).parts
    and path not in (ROOT / "__init__.py", ROOT / "__main__.py")
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "migrations":  # in an installed wheel
        return
    for name in imported(path) - {own}:
        assert RANK[name] < RANK[own], f"{own} must not import {name}"


def test_every_module_has_a_layer() -> None:
    names = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES}
    assert names - {"migrations"} == set(RANK)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["query", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from zsic_index.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["decider", "evaluator"])
def test_a_moved_module_warns(name: str) -> None:
    """The README showed these imports: they stay for one release."""
    sys.modules.pop(f"zsic_index.{name}", None)
    with pytest.warns(DeprecationWarning, match="has moved"):
        module = importlib.import_module(f"zsic_index.{name}")
    assert all(hasattr(module, exported) for exported in module.__all__)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "zsic_index", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert help_text.stdout.startswith("Usage: zsic-index [OPTIONS] COMMAND")
