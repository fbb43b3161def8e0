"""Random taxonomies for property tests, with plain sets of the nodes above each node."""

from __future__ import annotations

from hypothesis import strategies as st

from zsic_index.taxonomy import Taxonomy
from zsic_index.taxonomy.builder import TaxonomyBuilder
from zsic_index.taxonomy.entries import EntryDetails

RANKS = ("", "family", "genus", "species")


@st.composite
def taxonomies(draw: st.DrawFn, max_parents: int = 3, max_size: int = 14) -> Taxonomy:
    """Draw DAGs (trees, for one parent) whose file has children before parents and after."""
    size = draw(st.integers(1, max_size))
    file_order = draw(st.permutations(range(size)))
    above = {
        node: draw(st.lists(st.integers(0, node - 1), max_size=max_parents, unique=True))
        if node
        else []
        for node in range(size)
    }
    templates = draw(st.sets(st.integers(0, size - 1), max_size=3))
    builder = TaxonomyBuilder("drawn", "line")
    for number, node in enumerate(file_order, start=1):
        details = EntryDetails(
            parents=tuple(f"n{parent}" for parent in above[node]),
            rank=draw(st.sampled_from(RANKS)),
            templates=(f"{{}} under {node}",) if node in templates else (),
        )
        builder.add_label(number, f"n{node}", details, id=draw(st.sampled_from(["", f"#{node}"])))
    return builder.build(leaves_only=draw(st.booleans()))


def above_or_self(taxonomy: Taxonomy) -> list[set[int]]:
    """Return for each node the set of its ancestors and itself."""
    sets: list[set[int]] = []
    for node in range(len(taxonomy.names)):
        sets.append({node}.union(*(sets[parent] for parent in taxonomy.parents.of(node).tolist())))
    return sets


def depths(taxonomy: Taxonomy) -> list[int]:
    """Return for each node the number of steps on the shortest way up."""
    steps: list[int] = []
    for node in range(len(taxonomy.names)):
        parents = taxonomy.parents.of(node).tolist()
        steps.append(1 + min(steps[parent] for parent in parents) if parents else 0)
    return steps
