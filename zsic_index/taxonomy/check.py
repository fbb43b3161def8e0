"""Labels that get in each other's way, found before anything is encoded."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from zsic_index.parallel import batched
from zsic_index.prompts import DEFAULT_TEMPLATE
from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.names import folded
from zsic_index.taxonomy.structure import Structure

Tokenise = Callable[[list[str]], Sequence[Sequence[int]]]
"""From prompts to their token ids, neither padded nor cut."""

_BATCH = 4_096
"""Labels whose prompts are tokenised together."""

_LOOK_ALIKES = str.maketrans(
    # Cyrillic and Greek small letters that fonts draw like Latin ones.
    "аеорсухіјѕԁԛԝһοανιρυχκ"
    # Hyphens, dashes and minus; quotation marks and apostrophes.
    "‐‑‒–—−‘’‚‛`“”„«»",
    "aeopcyxijsdqwhoavipyxk" + "-" * 6 + "'" * 5 + '"' * 5,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong with labels, as far as it can be told without encoding them.

    A group is two or more labels, as positions in ``Taxonomy.labels``.

    Attributes:
        duplicates: names that were given again; the first mention is kept.
        homonyms: groups of the same name under different keys.
        twins: pairs that differ only in case or Unicode form.
        look_alikes: groups that a reader cannot tell apart, for letters of other alphabets,
            characters that show nothing, or kinds of dashes, quotation marks and spaces; without
            those that are homonyms or twins.
        same_prompts: groups whose prompts are the same.
        same_tokens: groups whose prompts differ, but not their tokens: to the text tower they are
            the same. Empty when nothing was tokenised.
        too_long: labels with a prompt of more tokens than the limit, and how many it has at most.
    """

    duplicates: tuple[str, ...]
    homonyms: tuple[tuple[int, ...], ...]
    twins: tuple[tuple[str, str], ...]
    look_alikes: tuple[tuple[int, ...], ...]
    same_prompts: tuple[tuple[int, ...], ...]
    same_tokens: tuple[tuple[int, ...], ...]
    too_long: tuple[tuple[int, int], ...]


def check(
    taxonomy: Taxonomy,
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    *,
    tokenise: Tokenise | None = None,
    max_tokens: int | None = None,
) -> Report:
    """Look for labels that would split probability between them, or be cut.

    Args:
        taxonomy: the labels.
        templates: T checked templates, for labels that have none of their own.
        tokenise: from prompts to token ids; None: tokens are not looked at.
        max_tokens: how many tokens of a prompt the text tower takes.
    """
    structure = Structure(taxonomy)
    names = taxonomy.labels
    prompts: list[Hashable] = []
    tokens: list[Hashable] = []
    too_long: list[tuple[int, int]] = []
    every = (structure.prompts_of(label, templates) for label in range(len(names)))
    for batch in batched(every, _BATCH):
        prompts.extend(_digest("\0".join(one).encode()) for one in batch)
        if tokenise is None:
            continue
        ids = iter(tokenise([prompt for one in batch for prompt in one]))
        for one in batch:
            found = [array("q", sequence) for sequence in islice(ids, len(one))]
            longest = max(map(len, found))
            if max_tokens is not None and longest > max_tokens:
                too_long.append((len(tokens), longest))
            # Lengths go in too, so that no two lists of sequences read the same.
            tokens.append(
                _digest(b"".join(array("q", [len(s)]).tobytes() + s.tobytes() for s in found))
            )
    return Report(
        duplicates=taxonomy.duplicates,
        homonyms=_alike(names),
        twins=taxonomy.twins,
        look_alikes=_alike(map(_skeleton, names), unless=list(map(folded, names))),
        same_prompts=_alike(prompts),
        same_tokens=_alike(tokens, unless=prompts),
        too_long=tuple(too_long),
    )


def _alike(
    values: Iterable[Hashable], unless: Sequence[Hashable] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return groups of positions with equal values, but not those all equal in ``unless`` too."""
    first: dict[Hashable, int] = {}
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for position, value in enumerate(values):
        if (start := first.setdefault(value, position)) != position:
            groups[start].append(position)
    return tuple(
        (start, *others)
        for start, others in sorted(groups.items())
        if unless is None or any(unless[other] != unless[start] for other in others)
    )


def _skeleton(name: str) -> str:
    """Return what of a name a reader sees."""
    if name.isascii():
        return " ".join(name.casefold().split()).translate(_LOOK_ALIKES)
    seen = "".join(char for char in folded(name) if unicodedata.category(char) != "Cf")
    return " ".join(seen.translate(_LOOK_ALIKES).split())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
