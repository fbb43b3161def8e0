"""Questions about structure against plain sets; packing."""

from __future__ import annotations

import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from tests.support import wordnet
from tests.support.taxonomies import above_or_self, depths, taxonomies
from zsic_index import taxonomy
from zsic_index.errors import LabelError, StoreError
from zsic_index.taxonomy import Taxonomy, packing
from zsic_index.taxonomy.structure import Structure

DAG = """\
id,label,parent,rank,lang:de,lang:pt-BR,template,prompt
a,Aves,,class,Vögel,,{} bird|a {},
g,Gruidae,a,family,,,,
m,machines,,,Maschinen,,the machine {},
c,crane,g,species,Kranich,grou,,
k,crane,m,,Kran,,,
l,Crane,g|m,,,,,"a {crane}|it"
x,tower of cranes,k|g,,,,,
y,plain,,,,,,
"""


@pytest.fixture
def structure(tmp_path: Path) -> Structure:
    path = tmp_path / "dag.csv"
    path.write_text(DAG, encoding="utf-8")
    return Structure(taxonomy.read(path))


@given(found=taxonomies())
def test_above_and_below(found: Taxonomy) -> None:
    structure = Structure(found)
    above, steps = above_or_self(found), depths(found)
    assert structure.depths.tolist() == steps
    for node in range(len(found.names)):
        assert set(structure.ancestors(node).tolist()) == above[node] - {node}
        below = [label for label, at in enumerate(found.label_nodes.tolist()) if node in above[at]]
        assert structure.descendants(node).tolist() == below
    for label, node in enumerate(found.label_nodes.tolist()):
        path = structure.path(label)
        assert path[-1] == node
        assert len(path) == steps[node] + 1
        assert not len(found.parents.of(path[0]))
        assert all(up in found.parents.of(down) for up, down in pairwise(path))


@given(found=taxonomies())
def test_groups_of_levels_have_parents_before_children(found: Taxonomy) -> None:
    seen: set[int] = set()
    for nodes in Structure(found).by_level:
        assert all(set(found.parents.of(node).tolist()) <= seen for node in nodes.tolist())
        seen |= set(nodes.tolist())
    assert seen == set(range(len(found.names)))


def nearest_templates(found: Taxonomy, node: int) -> tuple[str, ...]:
    """Breadth first, parents in the file's order."""
    front = [node]
    while front:
        for one in front:
            if one in found.templates:
                return found.templates[one]
        front = [parent for one in front for parent in found.parents.of(one).tolist()]
    return ()


@given(found=taxonomies())
def test_templates_are_the_nearest(found: Taxonomy) -> None:
    structure = Structure(found)
    for label, node in enumerate(found.label_nodes.tolist()):
        assert structure.templates_of(label) == nearest_templates(found, node)


def test_templates_and_prompts(structure: Structure) -> None:
    prompts = {
        structure.taxonomy.keys[node]: structure.prompts_of(label, ["my {}"])
        for label, node in enumerate(structure.taxonomy.label_nodes)
    }
    assert prompts == {
        "a": ["Aves bird", "a Aves"],
        "g": ["Gruidae bird", "a Gruidae"],
        "m": ["the machine machines"],
        "c": ["crane bird", "a crane"],
        "k": ["the machine crane"],
        "l": ["a {crane}", "it"],
        "x": ["the machine tower of cranes"],  # its two nearest are as near: first parent's
        "y": ["my plain"],
    }


def test_find(structure: Structure) -> None:
    keys = structure.taxonomy.keys
    assert keys[structure.find("k")] == "k"
    assert keys[structure.find("Crane")] == "l"
    assert keys[structure.find("aves")] == "a"
    with pytest.raises(LabelError, match=r"'crane' is the name of 2: .*'c', 'k'"):
        structure.find("crane")
    with pytest.raises(LabelError, match="'CRANE' is the name of 3"):
        structure.find("CRANE")
    with pytest.raises(LabelError, match=r"'Avez' is no name or key.*nearest: 'Aves'"):
        structure.find("Avez")


def test_ranks_and_depths(structure: Structure) -> None:
    def at(rank: str) -> list[str]:
        return [structure.taxonomy.keys[node] for node in structure.nodes_at(rank)]

    assert structure.ranks == ("class", "family", "species")
    assert at("Family") == ["g"]
    assert sorted(at("depth 0")) == ["a", "m", "y"]
    assert sorted(at("depth 2")) == ["c", "x"]
    for wrong in ("genus", "depth 9", "depth"):
        with pytest.raises(LabelError, match="use one of class, family, species"):
            structure.nodes_at(wrong)
    flat = Structure(taxonomy.collect(["a", "b"]))
    assert flat.ranks == ("depth 0",)
    assert flat.nodes_at("depth 0").tolist() == [0, 1]


def test_languages(structure: Structure) -> None:
    german = structure.labels_in("DE")
    assert german[:5] == ("Vögel", "Gruidae", "Maschinen", "Kranich", "Kran")
    assert structure.labels_in("pt-br")[3] == "grou"
    with pytest.raises(LabelError, match="no names in 'fr'; there are some in de, pt-BR"):
        structure.labels_in("fr")
    with pytest.raises(LabelError, match="lang:"):
        Structure(taxonomy.collect(["a"])).labels_in("de")


def same(one: Taxonomy, other: Taxonomy) -> bool:
    fields = ("labels", "duplicates", "twins", "names", "keys", "ranks", "aliases", "languages",
              "templates", "prompts")  # fmt: skip
    return (
        all(getattr(one, name) == getattr(other, name) for name in fields)
        and np.array_equal(one.label_nodes, other.label_nodes)
        and np.array_equal(one.rank_of, other.rank_of)
        and np.array_equal(one.parents.indptr, other.parents.indptr)
        and np.array_equal(one.parents.indices, other.parents.indices)
    )


@given(found=taxonomies())
def test_packing_there_and_back(found: Taxonomy) -> None:
    data = packing.pack(found)
    again = packing.unpack(data)
    assert same(again, found)
    assert packing.pack(again) == data


def test_packing_keeps_everything(structure: Structure) -> None:
    found = structure.taxonomy
    assert found.languages
    assert found.prompts
    assert same(packing.unpack(packing.pack(found)), found)
    flat = taxonomy.collect(["a", "A", "b", "a"])
    again = packing.unpack(packing.pack(flat))
    assert same(again, flat)
    assert again.keys is again.labels


def test_what_is_packed_is_never_changed(structure: Structure) -> None:
    with pytest.raises(ValueError, match="read-only"):
        structure.taxonomy.parents.indices[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        structure.taxonomy.label_nodes[0] = 1
    with pytest.raises(TypeError):
        structure.taxonomy.templates[0] = ()  # type: ignore[index]


def test_damaged_bytes_are_refused(structure: Structure) -> None:
    data = packing.pack(structure.taxonomy)
    text = zlib.decompress(data).decode()
    for wrong in (
        b"",
        data[:-5],
        zlib.compress(b"[]"),
        zlib.compress(b"{}"),
        zlib.compress(text.replace('"rank_of":[0', '"rank_of":[9').encode()),
        zlib.compress(text.replace('"names":[', '"names":["more",').encode()),
    ):
        with pytest.raises(StoreError, match="damaged"):
            packing.unpack(wrong)
    with pytest.raises(StoreError, match="form 2"):
        packing.unpack(zlib.compress(text.replace('"version":1', '"version":2').encode()))


@pytest.mark.skipif(not wordnet.DATA.exists(), reason="WordNet is not installed")
def test_wordnet(tmp_path: Path) -> None:
    found = taxonomy.read(wordnet.write_jsonl(wordnet.DATA, tmp_path / "nouns.jsonl"))
    structure = Structure(found)
    assert len(found.labels) > 80_000
    assert (structure.parents.counts > 1).sum() > 1_000
    roots = np.flatnonzero(structure.parents.counts == 0).tolist()
    assert "entity" in {found.names[node] for node in roots}
    assert sum(len(structure.descendants(node)) for node in roots) >= len(found.labels)
