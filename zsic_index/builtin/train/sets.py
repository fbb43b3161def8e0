"""Drawing sets: licence, credit and role, and the match of their icons to concepts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zsic_index.builtin.train import npm
from zsic_index.builtin.train.concepts import Concept, strip_selectors

Role = Literal["train", "test"]


@dataclass(frozen=True)
class DrawingSet:
    """A set of drawings.

    Attributes:
        name: name of the npm package.
        title: name for people.
        licence: licence of the drawings.
        author: name to credit.
        url: home of the set.
        role: ``train``, or ``test`` for sets that only measure the models.
        monochrome: whether the drawings are black on transparent.
    """

    name: str
    title: str
    licence: str
    author: str
    url: str
    role: Role = "train"
    monochrome: bool = False


SETS: tuple[DrawingSet, ...] = (
    DrawingSet(
        "noto", "Noto Emoji", "Apache-2.0", "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
    ),
    DrawingSet(
        "noto-v1", "Noto Emoji (v1)", "Apache-2.0", "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
    ),
    # The package says Apache-2.0, which upstream is the licence of the code, not of the drawings.
    DrawingSet(
        "fxemoji", "Firefox OS Emoji", "CC-BY-4.0", "Mozilla Foundation",
        "https://github.com/mozilla/fxemoji",
    ),
    DrawingSet(
        "fluent-emoji", "Fluent Emoji", "MIT", "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    DrawingSet(
        "fluent-emoji-flat", "Fluent Emoji Flat", "MIT", "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    DrawingSet(
        "fluent-emoji-high-contrast", "Fluent Emoji High Contrast", "MIT", "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji", monochrome=True,
    ),
    DrawingSet(
        "twemoji", "Twitter Emoji", "CC-BY-4.0", "Twitter",
        "https://github.com/jdecked/twemoji",
    ),
    DrawingSet(
        "emojione", "Emoji One (Colored)", "CC-BY-4.0", "Emoji One",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    DrawingSet(
        "emojione-monotone", "Emoji One (Monotone)", "CC-BY-4.0", "Emoji One",
        "https://github.com/EmojiTwo/emojitwo", monochrome=True,
    ),
    DrawingSet(
        "streamline-emojis", "Streamline Emojis", "CC-BY-4.0", "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
    ),
    # Share-alike drawings only measure the models; they are neither trained on nor shipped.
    DrawingSet(
        "openmoji", "OpenMoji", "CC-BY-SA-4.0", "OpenMoji",
        "https://github.com/hfg-gmuend/openmoji", role="test",
    ),
    DrawingSet(
        "emojione-v1", "Emoji One (v1)", "CC-BY-SA-4.0", "Emoji One",
        "https://github.com/joypixels/emojione-legacy", role="test",
    ),
)  # fmt: skip

# Sets without a table of codes use that of a sibling with the same names.
_SIBLING = {"fluent-emoji": "fluent-emoji-flat", "noto-v1": "noto"}


class Icons:
    """Icons of one set, as SVG documents."""

    def __init__(self, cache: Path, drawing_set: DrawingSet) -> None:
        """Read the package of ``drawing_set`` from ``cache``."""
        package = f"@iconify-json/{drawing_set.name}"
        data: dict[str, Any] = npm.read(cache, package, "icons.json")
        self.set = drawing_set
        self._icons: dict[str, dict[str, Any]] = data["icons"]
        self._aliases: dict[str, dict[str, Any]] = data.get("aliases", {})
        self._size = (data.get("width", 16), data.get("height", 16))
        self._codes = _codes(cache, drawing_set.name)
        self._squeezed = {squeeze(name): name for name in (*self._icons, *self._aliases)}

    def match(self, concepts: list[Concept]) -> dict[str, str]:
        """Return concept id → icon name; no icon is used for two concepts.

        Codes are matched first, then labels, then other names, so that a weak match never takes the
        icon of a strong one.
        """
        matches: dict[str, str] = {}
        taken: set[str] = set()
        for keys in (self._by_code, self._by_label, self._by_alias):
            for concept in concepts:
                if concept.id in matches:
                    continue
                for name in keys(concept):
                    body = self._parent(name)
                    if body not in taken:
                        matches[concept.id] = name
                        taken.add(body)
                        break
        return matches

    def svg(self, name: str) -> str:
        """Return an icon as an SVG document, with black for ``currentColor``."""
        alias = self._aliases.get(name, {})
        icon = (
            self._icons[alias.get("parent", name)]
            if name not in self._icons
            else (self._icons[name])
        )
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", self._size[0])
        height = icon.get("height", self._size[1])
        body = icon["body"].replace("currentColor", "#000")
        if alias.get("hFlip") and name not in self._icons:
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{body}</svg>'
        )

    def _parent(self, name: str) -> str:
        alias = self._aliases.get(name)
        if name in self._icons or alias is None:
            return name
        # A mirrored alias counts as another drawing.
        return name if alias.get("hFlip") else str(alias["parent"])

    def _by_code(self, concept: Concept) -> Iterator[str]:
        name = self._codes.get(strip_selectors(concept.id))
        if name is not None and (name in self._icons or name in self._aliases):
            yield name

    def _by_label(self, concept: Concept) -> Iterator[str]:
        yield from self._lookup(concept.label)
        code = strip_selectors(concept.id)
        if "-" not in code:
            yield from self._lookup(unicodedata.name(chr(int(code, 16)), ""))

    def _by_alias(self, concept: Concept) -> Iterator[str]:
        # Sets with codes are fully matched by them.
        if not self._codes:
            for alias in concept.aliases:
                yield from self._lookup(alias)

    def _lookup(self, text: str) -> Iterator[str]:
        if not text:
            return
        for key in (squeeze(text), squeeze(text) + "1"):
            if key in self._squeezed:
                yield self._squeezed[key]


def squeeze(text: str) -> str:
    """Return the letters and digits of a name, equal for all spellings of it."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain)


def _codes(cache: Path, name: str) -> dict[str, str]:
    package = f"@iconify-json/{_SIBLING.get(name, name)}"
    if not npm.has(cache, package, "chars.json"):
        return {}
    table: dict[str, str] = npm.read(cache, package, "chars.json")
    return {strip_selectors(code): icon for code, icon in table.items()}
