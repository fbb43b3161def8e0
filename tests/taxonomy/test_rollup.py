"""Roll-up against sums over plain sets, in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle, wordnet
from tests.support.taxonomies import above_or_self, taxonomies
from zsic_index import taxonomy
from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.errors import LabelError
from zsic_index.taxonomy import Taxonomy
from zsic_index.taxonomy.builder import TaxonomyBuilder
from zsic_index.taxonomy.entries import EntryDetails
from zsic_index.taxonomy.rollup import (
    LabelGroups,
    RollUp,
    find_deepest,
    group_labels_at,
    group_labels_below,
)
from zsic_index.taxonomy.structure import Structure

SEEDS = st.integers(0, 2**32 - 1)


def masses(found: Taxonomy, seed: int, queries: int = 3) -> Float64:
    """(B, N) probabilities that add up to 1, over many orders of magnitude."""
    random = np.random.default_rng(seed)
    return oracle.softmax(random.normal(scale=10, size=(queries, len(found.labels))))


def labels_below(found: Taxonomy) -> list[list[int]]:
    """Return the labels at or below each node, by going through all of them for each node."""
    above = above_or_self(found)
    nodes = list(enumerate(found.label_nodes.tolist()))
    return [
        [label for label, node in nodes if other in above[node]]
        for other in range(len(found.names))
    ]


@settings(max_examples=200)
@given(found=taxonomies(), seed=SEEDS)
def test_all_nodes_of_a_dag(found: Taxonomy, seed: int) -> None:
    roll_up, values, below = RollUp(Structure(found)), masses(found, seed), labels_below(found)
    mass, maxima, ors = (oracle.of_nodes(values, below, how) for how in ("mass", "max", "noisy-or"))
    np.testing.assert_allclose(roll_up.node_mass(values), mass, rtol=1e-14)
    np.testing.assert_array_equal(roll_up.node_max(values), maxima)
    np.testing.assert_allclose(roll_up.node_noisy_or(values), ors, rtol=1e-9, atol=1e-15)


@settings(max_examples=200)
@given(found=taxonomies(), seed=SEEDS, data=st.data())
def test_groups_below_any_nodes_of_a_dag(found: Taxonomy, seed: int, data: st.DataObject) -> None:
    wanted = data.draw(st.sets(st.integers(0, len(found.names) - 1)))
    nodes = np.array(sorted(wanted), dtype=np.int64)
    below = group_labels_below(Structure(found), nodes)
    above = above_or_self(found)
    members = [{int(nodes[n]) for n in below.members.of(g)} for g in range(below.outside + 1)]
    assert len({frozenset(one) for one in members}) == len(members)
    assert members[below.outside] == set()
    for label, node in enumerate(found.label_nodes.tolist()):
        assert members[below.group_of[label]] == above[node] & wanted
    values = masses(found, seed)
    grouped = below.group_mass(values)
    np.testing.assert_allclose(grouped.sum(axis=1), 1, rtol=1e-14)
    labels = [labels_below(found)[node] for node in nodes]
    mass = oracle.of_nodes(values, labels, "mass")
    np.testing.assert_allclose(below.node_mass(grouped), mass, rtol=1e-14)
    maxima = np.zeros_like(grouped)
    np.maximum.at(maxima.T, below.group_of, values.T)
    of_maxima = oracle.of_nodes(values, labels, "max")
    np.testing.assert_array_equal(below.node_max(maxima), of_maxima)
    ors = np.ones_like(grouped)
    np.multiply.at(ors.T, below.group_of, 1 - values.T)
    of_ors = oracle.of_nodes(values, labels, "noisy-or")
    np.testing.assert_allclose(below.node_noisy_or(1 - ors), of_ors, rtol=1e-9, atol=1e-14)


@given(found=taxonomies(max_parents=1, max_size=30), seed=SEEDS)
def test_mass_adds_up_at_every_depth_of_a_tree(found: Taxonomy, seed: int) -> None:
    structure, values = Structure(found), masses(found, seed)
    everywhere = RollUp(structure).node_mass(values)
    for depth in range(int(structure.depths.max()) + 1):
        below = group_labels_at(structure, f"depth {depth}")
        grouped = below.group_mass(values)
        mass = below.node_mass(grouped)
        np.testing.assert_allclose(mass.sum(axis=1) + grouped[:, below.outside], 1, rtol=1e-14)
        np.testing.assert_allclose(mass, everywhere[:, below.nodes], rtol=1e-14)


def structure_of(tmp_path: Path, text: str, name: str = "a.csv") -> Structure:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Structure(taxonomy.read(path))


DIAMOND = """\
label,parent,rank
food,,kind
fruit,food,family
vegetable,food,family
tomato,fruit|vegetable,
cherry tomato,tomato,
apple,fruit,
stone,,
"""


def named(structure: Structure, nodes: Int64, values: Float64) -> dict[str, float]:
    names = structure.taxonomy.names
    return {names[node]: float(value) for node, value in zip(nodes, values, strict=True)}


def test_a_label_under_two_families_counts_once_in_each(tmp_path: Path) -> None:
    structure = structure_of(tmp_path, DIAMOND)
    below = group_labels_at(structure, "family")
    labels = structure.taxonomy.labels
    values = np.zeros((1, len(labels)))
    for name, value in {
        "cherry tomato": 0.5,
        "tomato": 0.25,
        "apple": 0.125,
        "stone": 0.125,
    }.items():
        values[0, labels.index(name)] = value
    grouped = below.group_mass(values)
    mass = named(structure, below.nodes, below.node_mass(grouped)[0])
    assert mass == {"fruit": 0.875, "vegetable": 0.75}
    assert grouped[0, below.outside] == 0.125
    # Labels with the same families are in one group.
    of = dict(zip(labels, below.group_of.tolist(), strict=True))
    assert of["tomato"] == of["cherry tomato"] != of["apple"] == of["fruit"]
    assert of["food"] == of["stone"] == below.outside
    everywhere = RollUp(structure).node_mass(values)[0]
    assert everywhere[structure.find("food")] == 0.875


def test_in_a_tree_groups_are_nodes(tmp_path: Path) -> None:
    structure = structure_of(tmp_path, "b\n  x\n  y\na\n  z\nc\n", "a.txt")
    below = group_labels_at(structure, "Depth 0")
    assert below.members.indices.tolist() == [0, 1, 2]
    assert below.group_of.tolist() == [0, 0, 0, 1, 1, 2]


def test_certainty_stays_certain_under_noisy_or() -> None:
    roll_up = RollUp(Structure(taxonomy.collect(["a", "b"])))
    assert roll_up.node_noisy_or(np.array([[1.0, 0.0]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("queries", [0, 1, 5])
def test_shapes(queries: int) -> None:
    structure = Structure(taxonomy.collect(["a", "b"]))
    below: LabelGroups = group_labels_at(structure, "depth 0")
    values = np.full((queries, 2), 0.5)
    assert below.group_mass(values).shape == (queries, 3)
    assert below.node_mass(below.group_mass(values)).shape == (queries, 2)
    assert RollUp(structure).node_max(values).shape == (queries, 2)


@settings(max_examples=200)
@given(found=taxonomies(), seed=SEEDS, floor=st.floats(0, 1), other=st.floats(0, 1))
def test_deepest(found: Taxonomy, seed: int, floor: float, other: float) -> None:
    structure = Structure(found)
    values = RollUp(structure).node_mass(masses(found, seed, 1))[0].round(3)
    floors = {rank: other for rank in found.ranks if rank == "family"}
    cleared: set[int] = set()
    for node, value in enumerate(values.tolist()):
        parents = found.parents.of(node).tolist()
        rank = found.ranks[found.rank_of[node]] if found.rank_of[node] >= 0 else ""
        if value >= floors.get(rank, floor) and (not parents or cleared & set(parents)):
            cleared.add(node)
    best = max(cleared, key=lambda n: (structure.depths[n], values[n], -n), default=None)
    assert find_deepest(structure, values, floor, floors) == best


def test_deepest_says_what_is_wrong(tmp_path: Path) -> None:
    structure = structure_of(tmp_path, DIAMOND)
    with pytest.raises(LabelError, match="no rank 'genus' here; use one of kind, family"):
        find_deepest(structure, np.ones(7), 0.5, {"genus": 0.1})
    with pytest.raises(LabelError, match="one for each of 7 nodes"):
        find_deepest(structure, np.ones(6), 0.5)


@pytest.mark.parametrize("parents", [1, 3])
def test_both_ways_agree_on_many_labels(parents: int) -> None:
    random = np.random.default_rng(0)
    builder = TaxonomyBuilder("drawn", "line")
    size = 20_000
    for node in range(size):
        above = random.integers(0, max(1, node // 10), size=parents if node % 50 == 7 else 1)
        written = tuple(f"n{up}" for up in dict.fromkeys(above.tolist())) if node else ()
        builder.add_label(node + 1, f"n{node}", EntryDetails(parents=written))
    structure = Structure(builder.build())
    values = random.dirichlet(np.ones(size), 2)
    everywhere = RollUp(structure).node_mass(values)
    inner = np.flatnonzero(structure.children.counts > 0)
    below = group_labels_below(structure, inner)
    np.testing.assert_allclose(
        below.node_mass(below.group_mass(values)), everywhere[:, inner], rtol=1e-12
    )
    np.testing.assert_allclose(everywhere[:, 0], 1, rtol=1e-12)


@pytest.mark.skipif(not wordnet.DATA.exists(), reason="WordNet is not installed")
def test_wordnet(tmp_path: Path) -> None:
    found = taxonomy.read(wordnet.write_jsonl(wordnet.DATA, tmp_path / "nouns.jsonl"))
    structure = Structure(found)
    values = masses(found, 0, 1)
    everywhere = RollUp(structure).node_mass(values)[0]
    for node in np.random.default_rng(1).choice(len(found.names), 200).tolist():
        below = values[0, structure.descendants(node)]
        assert everywhere[node] == pytest.approx(math.fsum(below), rel=1e-12, abs=0)
    assert everywhere[structure.find("entity")] == pytest.approx(1, rel=1e-12)
    below = group_labels_at(structure, "depth 5")
    mass = below.node_mass(below.group_mass(values))[0]
    np.testing.assert_allclose(mass, everywhere[below.nodes], rtol=1e-12)
