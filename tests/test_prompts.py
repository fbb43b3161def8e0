from __future__ import annotations

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


def test_no_templates_at_all() -> None:
    with pytest.raises(TemplateError, match="no templates"):
        prompts.resolve([])


@given(label=st.text())
def test_labels_are_inserted_as_they_are(label: str) -> None:
    assert prompts.render(label, ["a {}.", "{}"]) == [f"a {label}.", label]


@pytest.mark.parametrize("label", ["{}", "{0}", "{x!r:>9}", "%s", "\\1", "100 %"])
def test_braces_in_labels_mean_nothing(label: str) -> None:
    assert prompts.render(label, ["<{}>"]) == [f"<{label}>"]
