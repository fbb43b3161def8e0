"""Help texts with headings."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from tests.support.paths import ROOT
from tests.tools.command_line import command_line
from zsic_index.cli import main
from zsic_index.cli.help import GroupedCommand, GroupedGroup, option_group


@click.command(cls=GroupedCommand)
@click.argument("path")
@option_group(
    "Selection",
    click.option("--first", help="Comes first."),
    click.option("--an-option-with-a-very-long-name", help="Wraps."),
    click.option("--hidden", hidden=True),
)
@click.option("--plain", is_flag=True, help="Has no heading.")
@option_group("Output", click.option("--bare"))
def grouped(**values: object) -> None:
    """Do something."""
    click.echo(sorted(values))


def help_of(command: click.Command) -> str:
    return CliRunner().invoke(command, ["--help"], terminal_width=80).output


def test_options_come_under_their_headings() -> None:
    assert help_of(grouped).splitlines()[4:] == [
        "Selection:",
        "  --first TEXT                    Comes first.",
        "  --an-option-with-a-very-long-name TEXT",
        "                                  Wraps.",
        "",
        "Output:",
        "  --bare TEXT",
        "",
        "Other options:",
        "  --plain                         Has no heading.",
        "  --help                          Show this message and exit.",
    ]


def test_grouped_options_are_parsed() -> None:
    result = CliRunner().invoke(grouped, ["x", "--first", "a", "--bare", "b"])
    assert result.output == (
        "['an_option_with_a_very_long_name', 'bare', 'first', 'hidden', 'path', 'plain']\n"
    )


def test_without_groups_the_headings_are_those_of_click() -> None:
    assert "\nOptions:\n  --help  " in help_of(GroupedCommand("bare"))
    group = GroupedGroup("group", commands={"bare": GroupedCommand("bare", help="Do nothing.")})
    assert help_of(group).endswith("\nCommands:\n  bare  Do nothing.\n")


def test_commands_come_under_their_headings_in_the_order_they_were_added() -> None:
    group = GroupedGroup("group")
    group.add_command(click.Command("other", help="Has no heading."))
    group.add_commands(
        "Zoo", click.Command("walk", help="Walk."), click.Command("eat", help="Eat.")
    )
    group.add_commands("Home", click.Command("sleep", help="Sleep."))
    group.add_commands("Secrets", click.Command("hide", help="Hide.", hidden=True))
    assert help_of(group).splitlines()[5:] == [
        "Zoo:",
        "  walk   Walk.",
        "  eat    Eat.",
        "",
        "Home:",
        "  sleep  Sleep.",
        "",
        "Other commands:",
        "  other  Has no heading.",
    ]


def test_the_manual_lists_the_commands_under_the_same_headings() -> None:
    manual = (ROOT / "zsic_index" / "cli" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^## (.*)$|^\| `zsic-index ([\w-]+)", manual, re.MULTILINE)
    in_help = re.findall(r"^(\w.*):$|^  ([a-z][\w-]*)  +\S", help_of(main), re.MULTILINE)
    commands = list(dict.fromkeys(listed))[: len(in_help) - 1]
    assert [("Options", ""), *commands] == in_help


@pytest.mark.parametrize("path", command_line(main))
def test_help_fits_80_columns(path: str) -> None:
    arguments = [*path.split()[1:], "--help"]
    lines = CliRunner().invoke(main, arguments, terminal_width=80).output.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and "Usage:" not in line]
