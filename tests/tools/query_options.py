"""The options of a query as a table in Markdown.

``python -m tests.tools.query_options`` prints it for zsic_index/querying/README.md.
"""

from __future__ import annotations

import itertools

from zsic_index.querying.options import QueryOption
from zsic_index.querying.query import OPTIONS


def markdown_tables() -> str:
    """Return a heading and a table for each group of options."""
    sections = []
    for group, options in itertools.groupby(OPTIONS.values(), lambda option: option.group):
        rows = [row(option) for option in options]
        header = "| Python, JSON | command line | description |\n|---|---|---|"
        sections.append("\n".join((f"## {group}\n", header, *rows)))
    return "\n\n".join(sections) + "\n"


def row(option: QueryOption) -> str:
    name = f"`{option.name}`" + (" \\*" if option.local else "")
    flags = ", ".join(option.flags) + (f" {option.metavar}" if option.metavar else "")
    default = f" Default: {option.default}." if option.default not in (None, (), False) else ""
    return f"| {name} | `{flags}` | {option.description}{default} |"


if __name__ == "__main__":
    print(markdown_tables(), end="")
