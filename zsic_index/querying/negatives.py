"""Negative labels: names of things that are no label of the index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from zsic_index.taxonomy.names import fold_name


@dataclass(frozen=True, slots=True)
class RefusedNegative:
    """A negative label that would reject images of a real label.

    Attributes:
        name: name of the negative label.
        label: name of the real label.
        reason: sentence about how they are related.
    """

    name: str
    label: str
    reason: str


def refuse_negatives(
    negatives: Iterable[str],
    names: Mapping[str, str],
    ancestors: Mapping[str, Collection[str]],
) -> tuple[list[str], list[RefusedNegative]]:
    """Refuse negative labels that are a real label, or below one.

    These take probability from images that do show the label (NegRefine, Ansari et al. 2025,
    arXiv 2507.09795). Names are compared without regard to case, Unicode form and spaces.

    Args:
        negatives: names of negative labels.
        names: name of a real label, alias or translation → the label's name.
        ancestors: negative label → names of its ancestors, if these are available.

    Returns:
        The usable ones in order, and the refused ones.
    """
    real = {_folded(name): label for name, label in names.items()}
    ancestors_of = {_folded(name): names_above for name, names_above in ancestors.items()}
    kept: list[str] = []
    refused: list[RefusedNegative] = []
    for name in negatives:
        own = _folded(name)
        parent = next(
            (above for above in ancestors_of.get(own, ()) if _folded(above) in real), None
        )
        if own in real:
            label = real[own]
            same = "is a label" if _folded(label) == own else f"is another name of {label!r}"
            refused.append(RefusedNegative(name, label, f"negative label {name!r} {same}"))
        elif parent is not None:
            label = real[_folded(parent)]
            reason = f"negative label {name!r} is a kind of {label!r}, which is a label"
            refused.append(RefusedNegative(name, label, reason))
        else:
            kept.append(name)
    return kept, refused


def _folded(name: str) -> str:
    return " ".join(fold_name(name).split())
