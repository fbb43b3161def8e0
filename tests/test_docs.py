"""The docs are true: commands exist, examples run, links lead somewhere, CI runs what they say."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.paths import ROOT
from tests.support.services import ended, serving, started
from tests.support.stores import copy_store
from zsic_index import LabelIndex, builtin
from zsic_index.cli import main

README = ROOT / "README.md"
DOCS = [README, *sorted((ROOT / "zsic_index").rglob("README.md"))]
SERVICE = "http://127.0.0.1:8000"


def blocks(doc: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", doc.read_text(encoding="utf-8"), re.DOTALL)


def shell_commands() -> list[list[str]]:
    lines = "\n".join(block for doc in DOCS for block in blocks(doc, "sh"))
    parts = [part for line in lines.replace("\\\n", " ").splitlines() for part in line.split("&&")]
    commands = [words for part in parts if (words := shlex.split(part))[:1] == ["zsic-index"]]
    return [list(words) for words in dict.fromkeys(map(tuple, commands))]


def leaf_commands(group: click.Group, prefix: str = "zsic-index") -> dict[str, click.Command]:
    commands: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            commands |= leaf_commands(command, f"{prefix} {name}")
        else:
            commands[f"{prefix} {name}"] = command
    return commands


def test_every_command_is_documented_and_has_help() -> None:
    text = (ROOT / "zsic_index" / "cli" / "README.md").read_text(encoding="utf-8")
    for name, command in leaf_commands(main).items():
        assert f"`{name}" in text, name
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help or parameter.type.name in ("choice", "float"), parameter.name


@pytest.mark.parametrize("words", shell_commands(), ids=" ".join)
def test_commands_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pictures").mkdir()
    words = [word.replace("~", str(tmp_path)) for word in words]  # as the shell does
    for word in words:
        if re.fullmatch(r"\w+\.(txt|csv)", word):
            Path(word).write_text("label\n", encoding="utf-8")
        elif re.fullmatch(r"\w+/", word):
            Path(word).mkdir()
    name, *arguments = words[1:]
    command: click.Command = main.commands[name]
    while isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    command.make_context(name, arguments)


@pytest.mark.parametrize(
    "doc",
    [doc for doc in DOCS if blocks(doc, "python")],
    ids=lambda doc: str(doc.parent.relative_to(ROOT)),
)
def test_python_examples_run(
    doc: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Blocks are run in order; an index called emoji is there, as a service where one is named."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(builtin.samples()[0], "dog.png")
    labels = ["dog face", "cat face", "red apple", "tomato"]
    LabelIndex.build(labels, model="builtin:clip", name="emoji", store=store).close()
    for code in blocks(doc, "python"):
        if SERVICE in code:
            with serving(store) as service:
                run(code.replace(SERVICE, service.url), doc)
        else:
            run(code, doc)
    if doc == README:
        assert capsys.readouterr().out.count("dog face") == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_service_section_works_after_the_demo(
    built_store: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.read_text(encoding="utf-8").partition("## As a service\n")[2]
    first, second = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[:2]
    install, build, serve = map(shlex.split, first.splitlines())
    (request,) = map(shlex.split, second.splitlines())
    assert install[:2] == ["pip", "install"]
    monkeypatch.setenv("ZSIC_STORE", str(copy_store(built_store("emoji-clip"), tmp_path / "db")))
    main(["demo", "--page", str(tmp_path / "demo.html")], standalone_mode=False)
    main(build[1:], standalone_mode=False)
    process, address = started(*serve[2:])
    try:
        command = [word.replace(SERVICE, address) for word in request]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    finally:
        ended(process)
    (result,) = json.loads(output)["results"]
    assert result["predictions"][0]["label"] == "dog face"
    assert len(result["predictions"]) == 3


def test_scores_of_embeddings_are_those_of_their_images(store: Path) -> None:
    doc = ROOT / "zsic_index" / "label_index" / "README.md"
    names = run(blocks(doc, "python")[0], doc)
    # Their batches differ, and with them the last digit of a sum.
    for scored, classified in zip(names["same"], names["predictions"], strict=True):
        assert [p.label for p in scored] == [p.label for p in classified]
        assert scored[0].probability == pytest.approx(classified[0].probability, abs=1e-6)


def run(code: str, doc: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, str(doc), "exec"), names)
    return names


def test_ci_runs_the_documented_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    (test_command,) = set(re.findall(r"`(python -m pytest [^`]*)`", text))
    assert test_command == "python -m pytest -n 2 --dist loadfile"
    assert test_command in script
    install = re.search(r"pip install .*?(?= &&)", blocks(README, "sh")[0])
    assert install
    assert install[0].removeprefix("pip install ") in script


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_links_lead_somewhere(doc: Path) -> None:
    text = doc.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text):
        path = doc.parent / target if target else doc
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {anchor_of(title) for title in titles}, anchor
    for source in re.findall(r'src="([^"]*)"', text):
        assert (doc.parent / source).exists(), source


def anchor_of(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_modules_that_the_map_names_are_there() -> None:
    package = ROOT / "zsic_index"
    text = (package / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests/)?[\w/]+\.py)`", text):
        folder = ROOT if name.startswith("tests/") else package
        assert (folder / name).exists() or list((package / "library" / "sidecars").glob(name)), name
    for name in re.findall(r"^\| `([\w/]+)/`", text, re.MULTILINE):
        assert (package / name).is_dir(), name


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160
