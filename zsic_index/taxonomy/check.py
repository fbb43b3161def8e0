"""Check for labels that are easily confused, before anything is encoded."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from zsic_index.parallel import batched
from zsic_index.prompts import DEFAULT_TEMPLATE
from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.names import fold_name
from zsic_index.taxonomy.structure import Structure

Tokenise = Callable[[list[str]], Sequence[Sequence[int]]]
"""Function from prompts to their token ids, neither padded nor truncated."""

_BATCH = 4_096
"""Number of labels whose prompts are tokenised together."""

_LOOK_ALIKES = str.maketrans(
    # Cyrillic and Greek small letters that fonts draw like Latin ones.
    "аеорсухіјѕԁԛԝһοανιρυχκ"
    # Hyphens, dashes and minus; quotation marks and apostrophes.
    "‐‑‒–—−‘’‚‛`“”„«»",
    "aeopcyxijsdqwhoavipyxk" + "-" * 6 + "'" * 5 + '"' * 5,
)


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Labels that would share probability or be truncated.

    A group is two or more labels, as positions in ``Taxonomy.labels``.

    Attributes:
        duplicates: names that occur again; the first one is kept.
        homonyms: groups with the same name under different keys.
        twins: pairs that differ only in case or Unicode form.
        look_alikes: groups that look the same to a reader: letters of other alphabets, invisible
            characters, kinds of dashes, quotation marks and spaces; without homonyms and twins.
        same_prompts: groups with equal prompts.
        same_tokens: groups with different prompts but equal tokens, so that the text tower cannot
            tell them apart. Empty without a tokeniser.
        too_long: pairs of a label with a prompt over the token limit and the length of its longest.
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
) -> LabelReport:
    """Find labels that would share probability between them or have prompts truncated.

    Args:
        taxonomy: the labels.
        templates: T checked templates, for labels without their own.
        tokenise: function from prompts to token ids; None skips the checks of tokens.
        max_tokens: maximum length of a prompt in tokens; None for no limit.
    """
    structure = Structure(taxonomy)
    names = taxonomy.labels
    prompts: list[Hashable] = []
    tokens: list[Hashable] = []
    too_long: list[tuple[int, int]] = []
    by_label = (structure.prompts_of(label, templates) for label in range(len(names)))
    for batch in batched(by_label, _BATCH):
        prompts.extend(_digest("\0".join(own_prompts).encode()) for own_prompts in batch)
        if tokenise is None:
            continue
        ids = iter(tokenise([prompt for own_prompts in batch for prompt in own_prompts]))
        for own_prompts in batch:
            sequences = [array("q", sequence) for sequence in islice(ids, len(own_prompts))]
            longest = max(map(len, sequences))
            if max_tokens is not None and longest > max_tokens:
                too_long.append((len(tokens), longest))
            # Each length is hashed too, so that no two lists of sequences give the same bytes.
            tokens.append(
                _digest(b"".join(array("q", [len(s)]).tobytes() + s.tobytes() for s in sequences))
            )
    return LabelReport(
        duplicates=taxonomy.duplicates,
        homonyms=_group_equal(names),
        twins=taxonomy.twins,
        look_alikes=_group_equal(map(_skeleton, names), unless=list(map(fold_name, names))),
        same_prompts=_group_equal(prompts),
        same_tokens=_group_equal(tokens, unless=prompts),
        too_long=tuple(too_long),
    )


def _group_equal(
    values: Iterable[Hashable], unless: Sequence[Hashable] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return groups of positions with equal values, without groups that are equal in ``unless``."""
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
    """Return a string that is equal for names which look the same."""
    if name.isascii():
        return " ".join(name.casefold().split()).translate(_LOOK_ALIKES)
    visible = "".join(char for char in fold_name(name) if unicodedata.category(char) != "Cf")
    return " ".join(visible.translate(_LOOK_ALIKES).split())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
