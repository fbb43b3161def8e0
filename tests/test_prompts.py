from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic_index import prompts
from zsic_index.errors import TemplateError


def test_default_is_the_pipelines() -> None:
    import inspect

    from transformers import ZeroShotImageClassificationPipeline

    signature = inspect.signature(ZeroShotImageClassificationPipeline.preprocess)
    assert prompts.resolve(None) == (signature.parameters["hypothesis_template"].default,)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "no hole",
        "{} and {}",
        "{0}",
        "{0.__class__}",
        "{:999999999}",
        "{!r}",
        "{label}",
        "a { brace {}",
        "a } brace {}",
        "{{}}",
        "{{{}}}",
        "nul \0 {}",
        "x" * 1_000 + "{}",
    ],
)
def test_refuses_what_is_no_template(template: str) -> None:
    with pytest.raises(TemplateError):
        prompts.resolve(template)


def test_unknown_set_names_the_known_ones() -> None:
    with pytest.raises(TemplateError, match="photo"):
        prompts.resolve("fotos")


def test_sets_and_templates_mix_without_duplicates() -> None:
    resolved = prompts.resolve(["plain", "a {}", "{}"])
    assert resolved == ("{}", "a {}")
    assert len(prompts.resolve("photo")) == 7


def test_a_file_has_one_template_a_line(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("\ufeff# mine\na photo of {}.\r\n\n  {}, drawn\n", encoding="utf-8")
    assert prompts.resolve(file) == ("a photo of {}.", "{}, drawn")
    assert prompts.resolve([str(file), "plain"]) == ("a photo of {}.", "{}, drawn", "{}")


def test_a_file_that_is_wrong_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a photo of {}.\nno hole\n", encoding="utf-8")
    with pytest.raises(TemplateError, match="line 2: 'no hole' is neither a template"):
        prompts.resolve(file)
    file.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(TemplateError, match="no templates in it"):
        prompts.resolve(str(file))
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(TemplateError, match="not UTF-8"):
        prompts.resolve(str(file))
    with pytest.raises(TemplateError, match="No such file"):
        prompts.resolve(tmp_path / "missing.txt")


def test_a_template_is_never_taken_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "{}.txt").write_text("a file of {}", encoding="utf-8")
    assert prompts.resolve("{}.txt") == ("{}.txt",)


def test_the_80_templates_are_different() -> None:
    assert len(set(prompts.resolve("imagenet"))) == 80


def test_no_templates_at_all() -> None:
    with pytest.raises(TemplateError, match="no templates"):
        prompts.resolve([])


@given(label=st.text())
def test_labels_are_inserted_as_they_are(label: str) -> None:
    assert prompts.render(label, ["a {}.", "{}"]) == [f"a {label}.", label]


@pytest.mark.parametrize("label", ["{}", "{0}", "{x!r:>9}", "%s", "\\1", "100 %"])
def test_braces_in_labels_mean_nothing(label: str) -> None:
    assert prompts.render(label, ["<{}>"]) == [f"<{label}>"]
