"""Prompt templates: plain strings with exactly one ``{}``, and named sets and files of them.

To add a template set, add an entry to ``TEMPLATE_SETS``: its name then works wherever templates are
given (``build --template NAME``, ``templates=`` in Python, the drop-in pipeline).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsic_index.errors import TemplateError

DEFAULT_TEMPLATE = "This is a photo of {}."
"""The default of ``transformers.pipeline("zero-shot-image-classification")``."""

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "default": (DEFAULT_TEMPLATE,),
    "plain": ("{}",),
    "simple": ("a photo of {}.", "a drawing of {}.", "{}"),
    "photo": (
        "a photo of {}.",
        "a close-up of {}.",
        "a picture showing {}.",
        "a small picture of {}.",
        "a bright photo of {}.",
        "a drawing of {}.",
        "an image with {} in it.",
    ),
    "imagenet": (
        # 80 templates like those commonly used with ImageNet: they vary how a picture was taken,
        # its quality, how much of the object it shows, and the kind of picture.
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of one {}.",
        "a photo of several {}.",
        "a photo of my {}.",
        "a photo of someone's {}.",
        "a snapshot of a {}.",
        "a picture of a {}.",
        "a picture of the {}.",
        "an image showing a {}.",
        "a shot of a {}.",
        "a good picture of a {}.",
        "a good picture of the {}.",
        "a poor picture of a {}.",
        "a poor picture of the {}.",
        "a sharp photo of a {}.",
        "a sharp photo of the {}.",
        "an unsharp photo of a {}.",
        "an unsharp photo of the {}.",
        "a grainy photo of a {}.",
        "a grainy photo of the {}.",
        "a photo of a {} with JPEG artefacts.",
        "a photo of the {} in low resolution.",
        "a photo of a {} in high resolution.",
        "a pixelated image of a {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of a {}.",
        "a dark photo of the {}.",
        "an overexposed photo of a {}.",
        "a photo of a {} at night.",
        "a photo of a {} in daylight.",
        "a photo of a {} taken with a flash.",
        "a black-and-white photo of a {}.",
        "a black-and-white photo of the {}.",
        "a faded old photo of a {}.",
        "a colourful photo of a {}.",
        "a close-up of a {}.",
        "a close-up of the {}.",
        "a photo of a {} from far away.",
        "a photo of a {} from above.",
        "a photo of a {} from below.",
        "a photo of a {} from the side.",
        "a cropped photo of a {}.",
        "a cropped photo of the {}.",
        "a photo of a part of a {}.",
        "a photo of a {} behind something.",
        "a {} that is hard to see in a photo.",
        "a photo with a {} in the middle.",
        "a photo with a {} in the background.",
        "a photo of a big {}.",
        "a photo of a small {}.",
        "a photo of a clean {}.",
        "a photo of a dirty {}.",
        "a photo of a strange {}.",
        "a photo of a pretty {}.",
        "a photo of an ordinary {}.",
        "a photo of a {} outdoors.",
        "a photo of a {} indoors.",
        "a photo of a {} on a plain background.",
        "a studio photo of a {}.",
        "a mobile phone photo of a {}.",
        "a tilted photo of a {}.",
        "a mirrored photo of a {}.",
        "a drawing of a {}.",
        "a drawing of the {}.",
        "a pencil sketch of a {}.",
        "a child's drawing of a {}.",
        "a painting of a {}.",
        "a painting of the {}.",
        "a watercolour of a {}.",
        "a cartoon of a {}.",
        "an icon of a {}.",
        "a graffito of a {}.",
        "a tattoo of a {}.",
        "a toy {}.",
        "a {} made of paper.",
        "a {} made of plastic.",
        "a sculpture of a {}.",
        "a computer-generated {}.",
    ),
}
"""Name of a template set → its templates; see ``resolve``."""

MAX_TEMPLATE_LENGTH = 1_000
"""Maximum number of characters of a template."""


def resolve(templates: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """Turn templates, names of sets and template files into checked templates.

    Args:
        templates: a template, the name of a set, a text file with one template per line (blank
            lines and lines that start with ``#`` are skipped), a sequence of these, or None for the
            default. A string with a brace is always a template, never a file.

    Returns:
        T checked templates, in order and without duplicates.

    Raises:
        TemplateError: for an unknown set, an unreadable file, or a string that is not a template.
    """
    if templates is None:
        return TEMPLATE_SETS["default"]
    entries = [templates] if isinstance(templates, str | Path) else list(templates)
    if not entries:
        raise TemplateError("no templates given: give at least one string with one {}")
    return tuple(dict.fromkeys(template for entry in entries for template in _expand(entry)))


def resolve_without_files(templates: Sequence[str]) -> tuple[str, ...]:
    """Turn templates and names of template sets into checked templates; no file is opened.

    Raises:
        TemplateError: for a string that is neither.
    """
    checked: list[str] = []
    for entry in templates:
        checked += TEMPLATE_SETS.get(entry) or [check(entry)]
    return tuple(dict.fromkeys(checked))


def _expand(entry: str | Path) -> list[str]:
    """Return the checked templates of a template, a set or a file."""
    if isinstance(entry, str):
        if entry in TEMPLATE_SETS:
            return list(TEMPLATE_SETS[entry])
        if set("{}") & set(entry) or not _is_file(entry):
            return [check(entry)]
    path = Path(entry)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TemplateError(f"template file {path}: {reason}") from error
    templates = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                templates.append(check(line.strip()))
            except TemplateError as error:
                raise TemplateError(f"{path}: line {number}: {error}") from None
    if not templates:
        raise TemplateError(f"template file {path}: no templates in it; give at least one per line")
    return templates


def _is_file(entry: str) -> bool:
    try:
        return Path(entry).is_file()
    except (OSError, ValueError):
        # Too long for a file name, or with a NUL.
        return False


def check(template: str) -> str:
    """Return ``template``.

    Raises:
        TemplateError: when it is too long or does not have exactly one ``{}`` and no other brace.
    """
    excerpt = template if len(template) <= 60 else template[:57] + "..."
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise TemplateError(
            f"template {excerpt!r} has {len(template)} characters; "
            f"the limit is {MAX_TEMPLATE_LENGTH}"
        )
    if "\0" in template:
        raise TemplateError(f"template {excerpt!r} holds a NUL character: remove it")
    holes = template.count("{}")
    if holes == 0 and not set("{}") & set(template):
        raise TemplateError(
            f"{excerpt!r} is neither a template (a string with exactly one {{}}), nor a named set "
            f"({', '.join(TEMPLATE_SETS)}), nor a file"
        )
    if holes != 1 or set("{}") & set(template.replace("{}", "", 1)):
        raise TemplateError(
            f"template {excerpt!r} must hold exactly one {{}} and no other brace, "
            'for example "a photo of a {}."'
        )
    return template


def render(label: str, templates: Sequence[str]) -> list[str]:
    """Return the T prompts of one label.

    The label is inserted unchanged: ``str.format`` is not used, so braces in it have no meaning.
    """
    return [template.replace("{}", label, 1) for template in templates]
