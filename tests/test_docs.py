"""The README says what is so: its commands exist, its Python runs, its check is CI's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.paths import ROOT
from tests.support.services import serving
from zsic_index import LabelIndex, builtin
from zsic_index.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_commands() -> list[list[str]]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part))[:1] == ["zsic-index"]]


def leaf_commands(group: click.Group, prefix: str = "zsic-index") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= leaf_commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def test_every_command_is_in_the_readme_and_has_help() -> None:
    for name, command in leaf_commands(main).items():
        assert f"`{name}" in README, name
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help or parameter.type.name in ("choice", "float"), parameter.name


@pytest.mark.parametrize("words", shell_commands(), ids=" ".join)
def test_commands_of_the_readme_parse(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in words:
        if re.fullmatch(r"\w+\.(txt|csv)", word):
            Path(word).write_text("label\n", encoding="utf-8")
    name, *arguments = words[1:]
    main.commands[name].make_context(name, arguments)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_every_python_block_of_the_readme_is_run_here() -> None:
    assert len(blocks("python")) == 3


def test_the_readme_s_drop_in(capsys: pytest.CaptureFixture[str]) -> None:
    run(blocks("python")[0])
    assert capsys.readouterr().out.startswith("dog face ")


def test_the_readme_s_label_index(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(blocks("python")[1])
    assert "dog face" in capsys.readouterr().out
    # Their batches differ, and with them the last digit of a sum.
    for one, other in zip(names["same"], names["found"], strict=True):
        assert [p.label for p in one] == [p.label for p in other]
        assert one[0].probability == pytest.approx(other[0].probability, abs=1e-6)


def test_the_readme_s_client(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["dog face", "red apple"]
    LabelIndex.build(labels, model="builtin:clip", name="emoji", store=store).close()
    with serving(store) as service:
        code = blocks("python")[2].replace("http://127.0.0.1:8000", service.url)
        run(code.replace("dog.png", str(builtin.samples()[0])))
    assert "%  dog face" in capsys.readouterr().out


def test_ci_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    test_command = blocks("sh")[1].strip()
    assert test_command == "python -m pytest -n 2 --dist loadfile"
    assert script.rstrip().endswith(test_command)
    install = re.search(r"pip install .*?(?= &&)", blocks("sh")[0])
    assert install
    assert install[0].removeprefix("pip install ") in script


def test_files_that_the_readme_links_to_are_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
