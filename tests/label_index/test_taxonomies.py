"""Indexes built from taxonomies: keys, other names, templates, roll-up, the deepest node."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.support import oracle
from zsic_index import InputError, LabelError, LabelIndex, NodePrediction, builtin
from zsic_index.cli import main
from zsic_index.embedding_arrays import check_embeddings
from zsic_index.scan.exact import scan
from zsic_index.scan.groups import Grouping

ANIMALS = """\
id,label,parent,rank,aliases,template,lang:de,lang:fr
1,animals,,class,,a picture of {}.,Tiere,animaux
2,mammals,1,order,,,Säugetiere,
3,dog,2,,hound|puppy,,Hund,chien
4,cat,2,,kitten,,Katze,chat
5,crane,1,,,,Kranich,grue
6,machines,,class,,,Maschinen,machines
7,crane,6,,,a photo of the machine {}.,Kran,grue
8,robot,1|6,,,,Roboter,
"""


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    path = tmp_path / "animals.csv"
    path.write_text(ANIMALS, encoding="utf-8")
    return path


@pytest.fixture
def index(animals: Path, ready_store: Path) -> LabelIndex:
    return LabelIndex.build(animals, model="builtin:clip", name="animals")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_labels_of_one_name_are_two_labels(index: LabelIndex) -> None:
    assert sorted(index.labels) == sorted(
        ["animals", "mammals", "dog", "cat", "crane", "machines", "crane", "robot"]
    )
    found = index.classify(builtin.samples()[0], top_k=8)
    assert len({prediction.label_id for prediction in found}) == 8
    assert sum(prediction.probability for prediction in found) == pytest.approx(1, abs=1e-6)
    with pytest.raises(LabelError, match="'crane' is the name of 2 labels: use one of '5', '7'"):
        index.classify(builtin.samples()[0], labels=["crane"])
    alone = index.classify(builtin.samples()[0], labels=["5", "dog"])
    assert {prediction.label for prediction in alone} == {"crane", "dog"}


def test_names_and_templates_are_in_the_embedding(index: LabelIndex, tmp_path: Path) -> None:
    row = {key: at for at, key in enumerate(_keys(index))}
    with LabelIndex.build(
        ["dog", "hound", "puppy", "crane"],
        model="builtin:clip",
        name="plain",
        templates="a picture of {}.",
    ) as plain:
        names = plain.embeddings[:3].astype(np.float64).sum(axis=0)
        crane = plain.embeddings[3]
    expected = names / np.linalg.norm(names)
    np.testing.assert_allclose(index.embeddings[row["3"]], expected, atol=1e-6)
    np.testing.assert_allclose(index.embeddings[row["5"]], crane, atol=1e-6)
    assert np.abs(index.embeddings[row["7"]] - index.embeddings[row["5"]]).max() > 1e-3


def _keys(index: LabelIndex) -> list[str]:
    keys = index.structure.taxonomy.label_keys
    return [keys[at] for at in index.structure.row_order.tolist()]


def test_rows_carry_their_own_label(index: LabelIndex) -> None:
    names = dict(
        zip(index.structure.taxonomy.label_keys, index.structure.taxonomy.labels, strict=True)
    )
    assert index.labels == [names[key] for key in _keys(index)]


def test_a_rank_adds_up_to_one_and_counts_once(index: LabelIndex) -> None:
    embeddings = index.embed(builtin.samples()[:5])
    rows = {key: at for at, key in enumerate(_keys(index))}
    logits = index.info.logit_scale * oracle.similarities(embeddings, index.embeddings)
    probabilities = oracle.softmax(logits)
    below = {"animals": ["1", "2", "3", "4", "5", "8"], "machines": ["6", "7", "8"]}
    classes = oracle.of_nodes(probabilities, [[rows[key] for key in below[name]] for name in below])
    for line, found in zip(
        classes, index.score_rank(embeddings, rank="class", top_k=9), strict=True
    ):
        right = dict(zip(below, line.tolist(), strict=True))
        assert [node.label for node in found] == sorted(right, key=lambda name: -right[name])
        for node in found:
            assert node.probability == pytest.approx(right[node.label], abs=1e-6)
            assert (node.rank, node.path) == ("class", (node.label,))
    for found in index.score_rank(embeddings, rank="order", top_k=9):
        assert {node.label for node in found} == {"mammals", "(none)"}
        assert sum(node.probability for node in found) == pytest.approx(1, abs=1e-9)


def test_an_unknown_rank_names_the_ranks(index: LabelIndex) -> None:
    with pytest.raises(LabelError, match="no rank 'family' here; use one of class, order"):
        index.score_rank(np.ones(index.info.dim), rank="family")


def test_the_deepest_node(index: LabelIndex) -> None:
    rows = {key: at for at, key in enumerate(_keys(index))}
    dog, cat = index.embeddings[rows["3"]], index.embeddings[rows["4"]]
    sure = index.score_deepest(dog, floor=0.5)[0]
    assert sure is not None
    assert (sure.label, sure.path) == ("dog", ("animals", "mammals", "dog"))
    unsure = index.score_deepest(dog + cat, floor=0.9)[0]
    assert unsure is not None
    assert unsure.label in ("mammals", "animals")
    assert index.score_deepest(dog, floor=5e-324)[0] is not None
    picky = index.score_deepest(dog, floor=0.5, by_rank={"order": 1.0})[0]
    assert picky is not None
    assert picky.label == "animals"
    assert index.score_deepest(dog, floor=0.5, by_rank={"class": 1.0}) == [None]
    for floor in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="floor"):
            index.score_deepest(dog, floor=floor)


def test_sigmoid_takes_the_largest_or_at_least_one(animals: Path, store: Path) -> None:
    with LabelIndex.build(animals, model="builtin:siglip", name="s") as index:
        embeddings = index.embed(builtin.samples()[:3])
        everything = index.score(embeddings, top_k=8)
        largest = index.score_rank(embeddings, rank="class")
        any_of = index.score_rank(embeddings, rank="class", independent=True)
        names = dict(zip(index.label_ids.tolist(), _keys(index), strict=True))
    for predictions, one, other in zip(everything, largest, any_of, strict=True):
        by_key = {names[p.label_id]: p.probability for p in predictions if p.label_id}
        machines = [by_key[key] for key in ("6", "7", "8")]
        (found,) = [node.probability for node in one if node.label == "machines"]
        assert found == pytest.approx(max(machines), rel=1e-5)
        (found,) = [node.probability for node in other if node.label == "machines"]
        assert found == pytest.approx(1 - np.prod(1 - np.array(machines)), rel=1e-4)


def test_softmax_has_no_independent_labels(index: LabelIndex) -> None:
    with pytest.raises(InputError, match="softmax"):
        index.score_rank(np.ones(index.info.dim), rank="class", independent=True)


def test_building_again_does_nothing_and_a_new_name_keeps_the_id(
    index: LabelIndex, animals: Path
) -> None:
    with LabelIndex.build(animals, model="builtin:clip", name="animals") as again:
        assert again.report is not None
        assert not again.report.model_loaded
        assert again.info.generation == 1
    before = dict(zip(_keys(index), index.label_ids.tolist(), strict=True))
    animals.write_text(ANIMALS.replace("8,robot", "8,android"), encoding="utf-8")
    with LabelIndex.build(animals, model="builtin:clip", name="animals") as renamed:
        assert renamed.report is not None
        assert renamed.report.encoded_labels == 1
        assert dict(zip(_keys(renamed), renamed.label_ids.tolist(), strict=True)) == before
        assert "android" in renamed.labels


def test_an_older_generation_still_finds_its_rows(index: LabelIndex, animals: Path) -> None:
    embedding = index.embeddings[_keys(index).index("4")].copy()
    animals.write_text("id,label\n7,crane\n5,crane\n4,cat\n1,animals\n", encoding="utf-8")
    with LabelIndex.build(animals, model="builtin:clip", name="animals"):
        found = index.score(embedding, top_k=1, labels=["4", "5"])[0]
    assert found[0].label == "cat"
    assert found[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_plain_list_has_depth_alone(store: Path) -> None:
    with LabelIndex.build(["b", "a"], model="builtin:clip", name="plain") as plain:
        assert plain.info.taxonomy is None
        assert plain.structure.row_order.tolist() == [0, 1]
        (found,) = plain.score_rank(plain.embeddings[1], rank="depth 0")
        assert found[0].label == "a"


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("scale", [20.0, 100.0, 2_000.0])
@pytest.mark.parametrize("batch", [1, 3, 70])
def test_groups_in_the_scan_are_those_of_float64(
    rng: np.random.Generator, in_order: bool, scale: float, batch: int
) -> None:
    matrix = check_embeddings(rng.standard_normal((5_000, 32)))
    queries = check_embeddings(rng.standard_normal((batch, 32)))
    group_of = rng.integers(0, 70, 5_000)
    group_of = np.sort(group_of) if in_order else group_of
    found = scan(
        matrix,
        queries,
        3,
        logit_scale=scale,
        grouping=Grouping(group_of, 70, "sum"),
        threads=3,
        segment_rows=700,
        block_elements=3_000,
    ).groups
    weights = oracle.softmax(scale * oracle.similarities(queries, matrix))
    right = oracle.of_nodes(weights, [np.flatnonzero(group_of == group) for group in range(70)])
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-6)


def test_the_command_line_rolls_up(index: LabelIndex) -> None:
    picture = builtin.samples()[0]
    as_json = run("query", picture, "--name", "animals", "--rank", "class", "--format", "json")
    assert as_json.exit_code == 0, as_json.output
    (found,) = json.loads(as_json.stdout)
    assert {node["label"] for node in found["predictions"]} == {"animals", "machines"}
    table = run("query", picture, "--name", "animals", "--deepest", "0.0001").stdout
    assert "path" in table
    under = run("query", picture, "--name", "animals", "--under", "mammals", "-f", "csv").stdout
    rows = list(csv.DictReader(under.splitlines()))
    assert {row["label"] for row in rows} == {"mammals", "dog", "cat"}
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1)
    assert all(float(row["index_probability"]) <= float(row["probability"]) for row in rows)
    both = run("query", picture, "--name", "animals", "--rank", "class", "--deepest", "0.5")
    assert both.exit_code == 2


@pytest.mark.parametrize(
    ("language", "names"), [("de", {"Hund", "Katze"}), ("FR", {"chien", "chat"})]
)
def test_another_language_changes_names_and_no_id(
    index: LabelIndex, language: str, names: set[str]
) -> None:
    arguments = ("query", builtin.samples()[0], "--name", "animals", "-k", "8", "-f", "csv")
    own = list(csv.DictReader(run(*arguments).stdout.splitlines()))
    other = list(csv.DictReader(run(*arguments, "--lang", language).stdout.splitlines()))
    assert [row["label_id"] for row in own] == [row["label_id"] for row in other]
    assert names < {row["label"] for row in other}
    missing = run(*arguments, "--lang", "xx")
    assert missing.exit_code == 1
    assert "there are some in de, fr" in missing.output


def test_labels_are_searched_shown_and_exported(index: LabelIndex, tmp_path: Path) -> None:
    found = run("labels", "animals", "--search", "hound")
    assert "dog" in found.stdout
    assert "cat" not in found.stdout
    target = tmp_path / "out.jsonl"
    assert run("labels", "animals", "--export", target).exit_code == 0
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert lines[2] | {"label_id": 0} == {
        "label_id": 0,
        "id": "3",
        "label": "dog",
        "parent": ["2"],
        "rank": None,
        "aliases": ["hound", "puppy"],
        "lang": {"de": "Hund", "fr": "chien"},
        "path": ["animals", "mammals", "dog"],
    }
    with LabelIndex.build(target, model="builtin:clip", name="again") as again:
        assert again.structure.taxonomy.label_keys == index.structure.taxonomy.label_keys


def test_check_reports_before_anything_is_encoded(animals: Path, store: Path) -> None:
    result = run("build", animals, "--model", "builtin:clip", "--name", "x", "--check")
    assert result.exit_code == 0, result.output
    assert "8 labels" in result.stdout
    assert "names of several labels: 1" in result.stdout
    assert not store.exists()


def test_leaves_only(animals: Path, store: Path) -> None:
    built = run("build", animals, "--model", "builtin:clip", "--name", "x", "--leaves-only")
    assert built.exit_code == 0, built.output
    with LabelIndex.open("x") as index:
        assert sorted(index.labels) == ["cat", "crane", "crane", "dog", "robot"]
        (found,) = index.score_rank(index.embeddings[0], rank="class")
        assert {node.label for node in found} <= {"animals", "machines"}
        assert all(isinstance(node, NodePrediction) for node in found)
