"""Prompt templates: plain strings with exactly one ``{}``, named sets of them, and rendering."""

from __future__ import annotations

from collections.abc import Sequence

from zsic_index.errors import TemplateError

DEFAULT_TEMPLATE = "This is a photo of {}."
"""The default of ``transformers.pipeline("zero-shot-image-classification")``."""

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "default": (DEFAULT_TEMPLATE,),
    "plain": ("{}",),
    "photo": (
        "a photo of {}.",
        "a close-up of {}.",
        "a picture showing {}.",
        "a small picture of {}.",
        "a bright photo of {}.",
        "a drawing of {}.",
        "an image with {} in it.",
    ),
}
"""Named template sets; a name can stand wherever templates are asked for."""

MAX_TEMPLATE_LENGTH = 1_000


def resolve(templates: str | Sequence[str] | None) -> tuple[str, ...]:
    """Turn what a user gave into checked templates.

    Args:
        templates: a template, the name of a set, a sequence of either, or None for the default.

    Returns:
        T checked templates, duplicates removed, order kept.

    Raises:
        TemplateError: for an unknown set, or a string that is not a template.
    """
    if templates is None:
        return TEMPLATE_SETS["default"]
    given = [templates] if isinstance(templates, str) else list(templates)
    if not given:
        raise TemplateError("no templates given: give at least one string with one {}")
    found: dict[str, None] = {}
    for entry in given:
        for template in TEMPLATE_SETS.get(entry, (entry,)):
            found[check(template)] = None
    return tuple(found)


def check(template: str) -> str:
    """Return ``template`` if it is one, else raise a TemplateError that says why not."""
    shown = template if len(template) <= 60 else template[:57] + "..."
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise TemplateError(
            f"template {shown!r} has {len(template)} characters; the limit is {MAX_TEMPLATE_LENGTH}"
        )
    if "\0" in template:
        raise TemplateError(f"template {shown!r} holds a NUL character: remove it")
    holes = template.count("{}")
    if holes == 0 and not set("{}") & set(template):
        raise TemplateError(
            f"{shown!r} is neither a template (a string with exactly one {{}}) nor a named set "
            f"({', '.join(TEMPLATE_SETS)})"
        )
    if holes != 1 or set("{}") & set(template.replace("{}", "", 1)):
        raise TemplateError(
            f"template {shown!r} must hold exactly one {{}} and no other brace, "
            'for example "a photo of a {}."'
        )
    return template


def render(label: str, templates: Sequence[str]) -> list[str]:
    """Return the T prompts of one label.

    The label is inserted as it is: ``str.format`` is never used, so braces in it mean nothing.
    """
    return [template.replace("{}", label, 1) for template in templates]
