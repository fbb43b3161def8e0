"""The command line keeps its commands, arguments and options, their types and defaults."""

from __future__ import annotations

import json

import pytest

from tests.support.paths import DATA
from tests.tools.command_line import Parameters, command_line
from zsic_index.cli import main


def by_spelling(described: Parameters) -> Parameters:
    return {
        spelling: description
        for spellings, description in described.items()
        for spelling in ([spellings] if spellings.startswith("argument") else spellings.split())
    }


KEPT: dict[str, Parameters] = json.loads((DATA / "cli_options.json").read_text(encoding="utf-8"))
CURRENT = command_line(main)


@pytest.mark.parametrize("path", KEPT)
def test_a_command_keeps_its_parameters(path: str) -> None:
    kept, current = by_spelling(KEPT[path]), by_spelling(CURRENT[path])
    for spelling, description in kept.items():
        assert spelling in current
        choices, all_choices = description.get("choices", []), current[spelling].get("choices", [])
        assert set(choices) <= set(all_choices), spelling
        assert {**current[spelling], "choices": []} == {**description, "choices": []}, spelling
    for spelling in current.keys() - kept.keys():
        assert not current[spelling].get("required"), f"{path} {spelling} is new and required"
