"""Plain words in the package and the helpers of its tests, as far as a program can tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.paths import ROOT

FOLDERS = ("zsic_index", "migrations", "tests/support", "tests/tools")

RIDDLES = ("What ", "Which ", "Who ", "How ")
"""No docstring begins with these: a function's is an imperative, all others are noun phrases."""

VAGUE = {"found", "one", "said", "asked", "known", "wanted", "shown"}
"""No local variable has these names: a noun from the glossary says more."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield arguments and variables, without the fields of classes, and their lines."""
    fields = {
        target
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        for target in (getattr(statement, "target", None), *getattr(statement, "targets", ()))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno


def first_lines(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the first line of every docstring, those below attributes too, and their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str):
                yield text.strip().partition("\n")[0], node.lineno


def broken_rules(source: str) -> list[str]:
    """Return a line for each name or docstring that breaks a rule."""
    tree = ast.parse(source)
    return [f"{line}: {name}" for name, line in bound_names(tree) if name in VAGUE] + [
        f"{line}: {text}" for text, line in first_lines(tree) if text.startswith(RIDDLES)
    ]


def test_names_and_docstrings_are_plain() -> None:
    broken = {
        str(path.relative_to(ROOT)): rules
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (rules := broken_rules(path.read_text(encoding="utf-8")))
    }
    assert broken == {}


def test_the_rules_are_noticed() -> None:
    source = '''
class Reply:
    """What is sent."""

    known: int = 0
    """How many there are."""

    def pick(self, wanted: list[int]) -> int:
        """Return the first of some rows that is positive."""
        return next(one for one in wanted if one > 0)
'''
    assert broken_rules(source) == [
        "8: wanted",
        "10: one",
        "3: What is sent.",
        "6: How many there are.",
    ]
