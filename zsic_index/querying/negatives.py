"""Names of what is none of the labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from zsic_index.taxonomy.names import folded


@dataclass(frozen=True, slots=True)
class RefusedNegative:
    """A negative label that would reject images of a real one.

    Attributes:
        name: the negative label.
        label: the real one.
        reason: what the one is to the other, as a sentence.
    """

    name: str
    label: str
    reason: str


def refuse_negatives(
    negatives: Iterable[str],
    names: Mapping[str, str],
    ancestors: Mapping[str, Collection[str]],
) -> tuple[list[str], list[RefusedNegative]]:
    """Tell negative labels that can be used from those that are, or are below, a real label.

    Such a one takes probability from images that do show the label (NegRefine, Ansari et al. 2025,
    arXiv 2507.09795). Names are compared without regard to case, Unicode form and spaces.

    Args:
        negatives: names of negative labels.
        names: every name of a real label, its aliases and translations included → the label.
        ancestors: negative label → the names of all that is above it, as far as that is known.

    Returns:
        Those that can be used, in order, and those that are refused.
    """
    real = {_folded(name): label for name, label in names.items()}
    above = {_folded(name): found for name, found in ancestors.items()}
    kept: list[str] = []
    refused: list[RefusedNegative] = []
    for name in negatives:
        own = _folded(name)
        parent = next((a for a in above.get(own, ()) if _folded(a) in real), None)
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
    return " ".join(folded(name).split())
