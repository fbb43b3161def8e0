"""Indexes with a row for each name: built, kept, asked, calibrated and looked at."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.stores import copy_store
from zsic_index import InputError, LabelIndex, builtin, taxonomy
from zsic_index.cli import main
from zsic_index.embedding_arrays import Float32, Float64, check_embeddings
from zsic_index.evaluation import calibrate, embed_labelled, evaluate, read_labelled
from zsic_index.querying.decider import Decider
from zsic_index.querying.rules import MostNegativeMass
from zsic_index.store import Store

ANIMALS = """\
id,label,parent,rank,aliases,template,prompt
1,animals,,class,fauna,a picture of {}.,
2,mammals,1,order,,,
3,dog,2,,hound|puppy|dog|dog face,,
4,cat,2,,kitten|cat face,,
5,crane,1,,,,
6,machines,,class,devices|apparatus,,
7,crane,6,,lifting gear,a photo of the machine {}.,
8,robot,1|6,,android|bot,,
9,rocket,6,,spaceship|missile,,a drawing of a rocket
"""
NAMES = {
    "1": ["animals", "fauna"],
    "2": ["mammals"],
    "3": ["dog", "hound", "puppy", "dog face"],
    "4": ["cat", "kitten", "cat face"],
    "5": ["crane"],
    "6": ["machines", "devices", "apparatus"],
    "7": ["crane", "lifting gear"],
    "8": ["robot", "android", "bot"],
}
"""Those of labels whose prompts are made of templates; the ninth has a prompt of its own."""

How = Literal["max", "mass"]


def prompts_of(key: str) -> list[str]:
    if key == "9":
        return ["a drawing of a rocket"]
    template = {"7": "a photo of the machine {}.", "6": "a photo of {}."}.get(
        key, "a picture of {}."
    )
    return [template.replace("{}", name) for name in NAMES[key]]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the animals in every way, and their names one by one."""
    room = tmp_path_factory.mktemp("names")
    path, store = room / "animals.csv", room / "store.db"
    path.write_text(ANIMALS, encoding="utf-8")
    for names in ("mean", "max", "mass"):
        LabelIndex.build(
            path, model="builtin:clip", name=names, name_pooling=names, store=store,
            templates="a photo of {}.",
        ).close()  # fmt: skip
    LabelIndex.build(
        path, model="builtin:siglip", name="sigmoid", name_pooling="max", store=store,
        templates="a photo of {}.",
    ).close()  # fmt: skip
    every = [prompt for key in [*NAMES, "9"] for prompt in prompts_of(key)]
    for model in ("clip", "siglip"):
        LabelIndex.build(
            every, model=f"builtin:{model}", name=model, templates="{}", store=store
        ).close()
    return room


@pytest.fixture
def store(store: Path, room: Path) -> Path:
    shutil.copytree(room, store.parent, dirs_exist_ok=True)
    return store


@pytest.fixture(params=["max", "mass", "sigmoid"])
def index(request: pytest.FixtureRequest, store: Path) -> Iterator[LabelIndex]:
    with LabelIndex.open(request.param) as index:
        yield index


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def keys_of(index: LabelIndex) -> list[str]:
    return index.label_names.keys_of(index.label_ids.tolist())


class Brute:
    """The same index by hand, from the embeddings of prompts that another one has."""

    def __init__(self, index: LabelIndex, scale: float | None = None, bias: float | None = None):
        info = index.info
        self.info = info
        self.keys = keys_of(index)
        self.scale = info.logit_scale if scale is None else scale
        self.bias = info.logit_bias if bias is None else bias
        model = "clip" if info.activation == "softmax" else "siglip"
        with LabelIndex.open(model) as alone:
            self.embedding = dict(zip(alone.labels, alone.embeddings, strict=True))

    def logits(self, embeddings: Float32) -> Float64:
        """(B, N) in row order."""
        prompts = [prompts_of(key) for key in self.keys]
        rows = np.stack([self.embedding[prompt] for names in prompts for prompt in names])
        edges = [0, *np.cumsum([len(names) for names in prompts]).tolist()]
        columns = [range(*pair) for pair in pairwise(edges)]
        of_names = oracle.similarities(embeddings, rows)
        labels = oracle.pooled(of_names, columns, self.info.name_pooling, self.scale)
        return self.scale * labels + self.bias

    def probabilities(self, logits: Float64) -> Float64:
        return oracle.probabilities(logits, self.info.activation)


def queries(index: LabelIndex, seed: int = 0, count: int = 6) -> Float32:
    """Near to some names, so that probabilities are spread."""
    rng = np.random.default_rng(seed)
    near = index.embeddings[rng.integers(0, len(index.embeddings), count)]
    noise = rng.standard_normal(near.shape) / np.sqrt(near.shape[1])
    return check_embeddings(near + rng.uniform(0, 3, (count, 1)) * noise)


def test_each_name_is_a_row(index: LabelIndex) -> None:
    assert (len(index), index.info.labels) == (9, 9)
    assert index.info.rows == len(index.embeddings) == sum(map(len, NAMES.values())) + 1
    assert index.searcher.pooling is not None
    brute = Brute(index)
    counts = dict(zip(keys_of(index), index.searcher.pooling.counts.tolist(), strict=True))
    assert counts == {key: len(prompts_of(key)) for key in counts}
    for key, start in zip(keys_of(index), index.searcher.pooling.starts.tolist(), strict=False):
        for row, prompt in enumerate(prompts_of(key), start):
            np.testing.assert_allclose(index.embeddings[row], brute.embedding[prompt], atol=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), data=st.data())
def test_all_answers_are_those_of_float64(room: Path, seed: int, data: st.DataObject) -> None:
    with (
        LabelIndex.open(
            data.draw(st.sampled_from(["max", "mass", "sigmoid"])), store=room / "store.db"
        ) as index,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ZSIC_STORE", str(room / "store.db"))
        brute, embeddings = Brute(index), queries(index, seed)
        logits = brute.logits(embeddings)
        probabilities = brute.probabilities(logits)
        whole = index.score(embeddings, top_k=9)
        check(index, whole, logits, probabilities)
        wanted = data.draw(st.sets(st.sampled_from(brute.keys), min_size=1))
        chosen = sorted(brute.keys.index(key) for key in wanted)
        keys = [brute.keys[at] for at in chosen]
        found = index.score(embeddings, top_k=9, labels=keys, over_index=True)
        of_subset = np.full_like(logits, -np.inf)
        of_subset[:, chosen] = logits[:, chosen]
        check(index, found, of_subset, brute.probabilities(of_subset))
        for line, right in zip(found, probabilities, strict=True):
            for one in line:
                at = index.label_ids.tolist().index(one.label_id)
                assert one.index_probability == pytest.approx(right[at], abs=1e-5)
        how: Literal["mass", "max"] = "mass" if index.info.activation == "softmax" else "max"

        def of_node(*keys: str) -> list[float]:
            columns = [brute.keys.index(key) for key in keys]
            return oracle.of_nodes(probabilities, [columns], how)[:, 0].tolist()

        classes = {"animals": ["1", "2", "3", "4", "5", "8"], "machines": ["6", "7", "8", "9"]}
        for image, nodes in enumerate(index.score_rank(embeddings, rank="class")):
            for node in nodes:
                right = of_node(*classes[node.label])[image]
                assert node.probability == pytest.approx(right, abs=1e-5)
        floor = data.draw(st.sampled_from([0.2, 0.6, 0.9]))
        deepest = index.score_deepest(embeddings, floor=floor)
        for node, mammals in zip(deepest, of_node("3", "4", "2"), strict=True):
            if node is not None and node.label == "mammals":
                assert node.probability == pytest.approx(mammals, abs=1e-5)
                assert mammals >= floor - 1e-5


def check(
    index: LabelIndex,
    found: list,
    logits: Float64,
    probabilities: Float64,  # type: ignore[type-arg]
) -> None:
    ids = index.label_ids.tolist()
    for line, of_labels, right in zip(found, logits, probabilities, strict=True):
        order = [ids.index(one.label_id) for one in line]
        assert order == np.argsort(-of_labels, kind="stable")[: len(line)].tolist()
        for at, one in zip(order, line, strict=True):
            assert one.logit == pytest.approx(of_labels[at], abs=2e-5)
            assert one.probability == pytest.approx(right[at], abs=1e-5)
            assert one.logit == pytest.approx(
                one.similarity * index.searcher.logit_scale + index.searcher.logit_bias, abs=1e-9
            )


def test_pictures_under_a_node_and_all_probabilities(index: LabelIndex) -> None:
    pictures = builtin.samples()[:5]
    brute, embeddings = Brute(index), index.embed(pictures)
    right = brute.probabilities(brute.logits(embeddings))
    np.testing.assert_allclose(index.probabilities(pictures), right, atol=1e-5)
    under = index.labels_under("mammals")
    at = [brute.keys.index(key) for key in under]
    logits = brute.logits(embeddings)[:, at]
    for line, of_labels in zip(
        index.classify(pictures, labels=under), brute.probabilities(logits), strict=True
    ):
        assert line[0].probability == pytest.approx(of_labels.max(), abs=1e-5)


def test_similar_names_do_not_split_their_probability(store: Path) -> None:
    """By mass a label has what its names would have had as labels of their own."""
    with LabelIndex.open("mass") as index, LabelIndex.open("clip") as alone:
        embeddings = queries(index)
        apart = alone.score(embeddings, top_k=len(alone))
        for line, names in zip(index.score(embeddings, top_k=9), apart, strict=True):
            mass = {one.label: one.probability for one in names}
            keys = index.label_names.keys_of([p.label_id or 0 for p in line])
            for one, key in zip(line, keys, strict=True):
                total = sum(mass[prompt] for prompt in prompts_of(key))
                assert one.probability == pytest.approx(total, abs=1e-5)


def test_labels_from_outside_have_one_name(index: LabelIndex) -> None:
    picture = builtin.samples()[0]
    found = index.classify(picture, labels=["3", "pizza"], encode_missing=True, over_index=True)
    embedding = index.embed(picture).astype(np.float64)
    pizza = index.encoder.encode_labels(["pizza"])[0].astype(np.float64)
    scale, bias = index.searcher.logit_scale, index.searcher.logit_bias
    dog = Brute(index).logits(index.embed(picture))[0, keys_of(index).index("3")]
    logits = {"dog": dog, "pizza": float(embedding[0] @ pizza) * scale + bias}
    for one in found:
        assert one.logit == pytest.approx(logits[one.label], abs=2e-5)
    if index.info.activation == "softmax":
        assert sum(one.probability for one in found) == pytest.approx(1, abs=1e-6)
        share = np.exp(logits["dog"] - np.logaddexp(*logits.values()))
        own = next(one for one in found if one.label == "dog")
        assert own.probability == pytest.approx(share, abs=1e-5)


def test_negative_labels_stand_beside_pooled_ones(store: Path) -> None:
    with LabelIndex.open("mass") as index:
        embeddings = queries(index, 3, 20)
        negative = index.encoder.encode_labels(["pizza", "guitar"]).astype(np.float64)
        own = oracle.log_sum_exp(Brute(index).logits(embeddings))
        of_negative = oracle.similarities(embeddings, negative) * index.searcher.logit_scale
        mass = oracle.log_sum_exp(of_negative)
        share = np.exp(mass - np.logaddexp(mass, own))
        limit = float(np.median(share))
        rules = [MostNegativeMass(limit)]
        decided = Decider(index, rules=rules, negatives=["pizza", "guitar"]).decide(embeddings)
        assert [one.reason is not None for one in decided] == (share > limit).tolist()


# Building and keeping


def test_names_that_are_there_are_not_encoded_again(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text(ANIMALS.replace("kitten|cat face", "kitten|cat face|tomcat"), encoding="utf-8")
    with LabelIndex.open("max") as before:
        ids = dict(zip(keys_of(before), before.label_ids.tolist(), strict=True))
        changed = LabelIndex.build(
            path, model="builtin:clip", name="max", name_pooling="max", templates="a photo of {}."
        )
        report = changed.report
        assert report is not None
        assert (report.labels, report.encoded_labels, report.encoded_prompts) == (9, 1, 1)
        assert report.reused_labels == 8
        assert dict(zip(keys_of(changed), changed.label_ids.tolist(), strict=True)) == ids
        assert changed.info.rows == before.info.rows + 1
        assert changed.info.generation == before.info.generation + 1
        # An open index goes on with what it opened.
        assert len(before.score(queries(before), top_k=9, labels=["4", "7"])[0]) == 2
    with LabelIndex.build(
        path, model="builtin:clip", name="max", name_pooling="max", templates="a photo of {}."
    ) as same:
        assert same.info.generation == changed.info.generation
        assert same.report is not None
        assert not same.report.model_loaded


def test_an_index_may_change_to_other_names_and_back(tmp_path: Path, store: Path) -> None:
    path = store.parent / "animals.csv"
    with LabelIndex.open("mean") as before:
        ids, plan, checksum = before.label_ids.tolist(), before.info.plan, before.info.checksum
    for names in ("mass", "max", "mean"):
        with LabelIndex.build(
            path, model="builtin:clip", name="mean", name_pooling=names, templates="a photo of {}."
        ) as index:
            assert index.report is not None
            assert index.report.encoded_prompts == 0
            assert index.label_ids.tolist() == ids
            assert index.info.name_pooling == names
            with Store.open() as opened:
                assert opened.find_problems() == []
    assert (index.info.plan, index.info.checksum) == (plan, checksum)
    with sqlite3.connect(store) as connection:
        others = connection.execute(
            "SELECT count(*) FROM other_name JOIN label ON label.id = label_id "
            "JOIN label_index i ON i.id = index_id WHERE i.name = 'mean'"
        ).fetchone()
        assert others == (0,)
        rows = dict(connection.execute("SELECT name, rows FROM label_index"))
        assert rows["mean"] is None
        assert rows["max"] == sum(map(len, NAMES.values())) + 1


def test_a_file_is_made_anew_from_the_store(index: LabelIndex, store: Path) -> None:
    answers = index.score(queries(index), top_k=9)
    name = index.info.name
    for path in (store.parent / "store.db.indexes").glob(f"{name}-*"):
        path.unlink()
    with LabelIndex.open(name) as again:
        assert again.score(queries(again), top_k=9) == answers
        assert again.info.checksum == index.info.checksum
    done = run("verify", name)
    assert done.exit_code == 0, done.output
    with sqlite3.connect(store) as connection:
        connection.execute(
            "DELETE FROM other_name WHERE label_id IN (SELECT label.id FROM label "
            "JOIN label_index i ON i.id = index_id WHERE i.name = ? AND label.name = '3')", [name]
        )  # fmt: skip
    broken = run("verify", name)
    assert broken.exit_code == 1
    assert f"says {index.info.rows} rows but has {index.info.rows - 3}" in broken.stderr


def test_a_damaged_file_is_noticed(store: Path) -> None:
    (file,) = (store.parent / "store.db.indexes").glob("max-*")
    content = bytearray(file.read_bytes())
    content[300] ^= 1
    file.write_bytes(content)
    done = run("verify", "max")
    assert "rebuilt" in done.stdout
    assert "max: 9 labels: ok" in run("verify", "max").stdout


def test_removing_prunes_what_no_other_index_has(store: Path) -> None:
    def embeddings() -> int:
        with sqlite3.connect(store) as connection:
            return int(connection.execute("SELECT count(*) FROM embedding").fetchone()[0])

    before = embeddings()
    for name in ("clip", "mass"):
        removed = run("rm", name, "--prune")
        assert removed.exit_code == 0, removed.output
        assert embeddings() == before, "further names of max are in use"
    run("rm", "max", "--prune")
    assert embeddings() == before - sum(map(len, NAMES.values())) - 1 + len({"2", "5", "9"})
    assert run("verify").exit_code == 0


def test_a_store_without_pooling_has_no_other_names(tmp_path: Path) -> None:
    store = tmp_path / "plain.db"
    path = tmp_path / "animals.csv"
    path.write_text(ANIMALS, encoding="utf-8")
    LabelIndex.build(path, model="builtin:clip", name="a", store=store).close()
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM other_name").fetchone() == (0,)
    path.write_text("label\nrobot\nrocket\n", encoding="utf-8")
    with LabelIndex.build(
        path, model="builtin:clip", name="b", name_pooling="mass", store=store
    ) as index:
        assert index.searcher.pooling is None
        assert index.info.name_pooling == "mass"


@pytest.mark.parametrize("kind", ["float16", "hnsw", "ivf"])
def test_other_kinds_are_refused(store: Path, kind: Literal["float16", "hnsw", "ivf"]) -> None:
    with pytest.raises(
        InputError, match=f"name_pooling 'max' with kind '{kind}': only kind 'flat'"
    ):
        LabelIndex.build(["a"], model="builtin:clip", name="x", name_pooling="max", kind=kind)


def test_a_sigmoid_has_no_mass(store: Path) -> None:
    path = store.parent / "animals.csv"
    for _ in range(2):  # whether or not the store knows the model
        with pytest.raises(InputError, match="has sigmoid: use name_pooling 'max'"):
            LabelIndex.build(path, model="builtin:siglip", name="x", name_pooling="mass")
        store.unlink()
    with pytest.raises(InputError, match="name_pooling 'sum': use one of mean, max, mass"):
        LabelIndex.build(path, model="builtin:clip", name="x", name_pooling="sum")  # type: ignore[arg-type]


# The command line


def test_the_command_line_builds_and_shows_them(tmp_path: Path, store: Path) -> None:
    path = store.parent / "animals.csv"
    built = run("build", path, "-m", "builtin:clip", "-n", "new", "--name-pooling", "mass",
                "-t", "a photo of {}.")  # fmt: skip
    assert built.exit_code == 0, built.output
    assert "new: 9 labels, 0 encoded (0 prompts), 9 from the store" in built.stdout
    info = json.loads(run("info", "new", "--json").stdout)
    assert (info["names"], info["labels"], info["rows"]) == ("mass", 9, 20)
    picture = builtin.samples()[0]
    rows = [
        list(csv.DictReader(run("query", picture, "-n", name, "-f", "csv").stdout.splitlines()))
        for name in ("new", "mass")
    ]
    assert [row["probability"] for row in rows[0]] == [row["probability"] for row in rows[1]]
    target = tmp_path / "out.jsonl"
    assert run("labels", "new", "--export", target).exit_code == 0
    found = run("labels", "new", "--search", "puppy").stdout
    assert "1 of 1 labels" in found
    refused = run("build", path, "-m", "builtin:siglip", "-n", "y", "--names", "mass")
    assert refused.exit_code == 1
    assert "name_pooling 'max'" in refused.output


def test_an_export_builds_the_same(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    path = tmp_path / "plain.csv"
    path.write_text("label,aliases\ndog,hound|puppy\ncat,\n", encoding="utf-8")
    with LabelIndex.build(path, model="builtin:clip", name="one", name_pooling="max") as one:
        run("labels", "one", "--export", target)
        with LabelIndex.build(target, model="builtin:clip", name="two", name_pooling="max") as two:
            np.testing.assert_array_equal(one.embeddings, two.embeddings)


# Labelled images


EMOJI: dict[str, list[How]] = {"clip": ["max", "mass"], "siglip": ["max"]}
"""Which poolings of names each built-in model's store has."""


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory, built_store: Callable[[str], Path]) -> Path:
    """A store for each model of emoji with their other names, and the samples by label."""
    room = tmp_path_factory.mktemp("emoji")
    with builtin.emoji_labels().open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (room / "emoji.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "aliases"])
        writer.writerows([row["label"], row["other_names"]] for row in rows)
    for path, label in zip(builtin.samples(), builtin.sample_labels().values(), strict=True):
        (room / "pictures" / label).mkdir(parents=True)
        shutil.copy(path, room / "pictures" / label)
    for model, poolings in EMOJI.items():
        # The labels themselves are encoded there.
        store = copy_store(built_store(f"emoji-{model}"), room / f"{model}.db")
        for pooling in poolings:
            LabelIndex.build(
                taxonomy.read(room / "emoji.csv"),
                model=f"builtin:{model}",
                name=pooling,
                name_pooling=pooling,
                store=store,
            ).close()
    return room


@pytest.mark.parametrize("name", ["max", "mass", "sigmoid"])
def test_calibrating_and_evaluating(emoji: Path, name: str) -> None:
    store = emoji / ("siglip.db" if name == "sigmoid" else "clip.db")
    with LabelIndex.open("max" if name == "sigmoid" else name, store=store) as index:
        known = embed_labelled(index, read_labelled(emoji / "pictures"))
        assert index.searcher.pooling is not None
        fitted = calibrate(index, known, coverage=0.8, precision=0.3)
        assert fitted.fit.nll < fitted.fit.nll_before
        assert fitted.conformal is not None
        plain, index = index, index.with_calibration(fitted)

        scale, bias = fitted.fit.scale, fitted.fit.bias
        pooling = index.searcher.pooling
        of_names = oracle.similarities(known.embeddings, index.embeddings)
        columns = [range(*edges) for edges in pairwise(pooling.starts.tolist())]
        logits = scale * oracle.pooled(of_names, columns, pooling.how, scale) + bias
        probabilities = oracle.probabilities(logits, index.info.activation)
        for line, right in zip(index.score(known.embeddings, 5), probabilities, strict=True):
            order = np.argsort(-right, kind="stable")[:5]
            assert [one.label_id for one in line] == index.label_ids[order].tolist()
            np.testing.assert_allclose([one.probability for one in line], right[order], atol=1e-5)
        own = probabilities[known.truth.image, known.truth.label]
        sets = Decider(index, sets=fitted.conformal).decide(known.embeddings)
        ids = index.label_ids
        for image, (decision, right) in enumerate(zip(sets, probabilities, strict=True)):
            inside = {one.label_id for one in decision.predictions}
            sure = set(ids[right >= fitted.conformal.limit + 1e-5].tolist())
            assert sure <= inside <= set(ids[right >= fitted.conformal.limit - 1e-5].tolist())
            if own[image] >= fitted.conformal.limit + 1e-5:
                assert ids[known.truth.label[image]] in inside

        index = plain
        found = evaluate(index, known, source="x", calibration=fitted)
        hits = [line[0].label for line in index.score(known.embeddings, 1)]
        right_labels = [path.parent.name for path in known.paths]
        assert found.top1.value == np.mean(
            [a == b for a, b in zip(hits, right_labels, strict=True)]
        )
        assert found.coverage is not None
        # The limit is one image's own probability: rounding may put that image on either side.
        limit = fitted.conformal.limit
        assert (own >= limit + 1e-9).mean() <= found.coverage.found.value
        assert found.coverage.found.value <= (own >= limit - 1e-9).mean()


def test_other_templates_keep_the_names_apart(store: Path) -> None:
    with LabelIndex.open("max") as index, index.with_templates("a sketch of {}.") as other:
        assert other.info.rows == index.info.rows
        path = store.parent / "animals.csv"
        with LabelIndex.build(
            path,
            model="builtin:clip",
            name="sketch",
            name_pooling="max",
            templates="a sketch of {}.",
        ) as right:
            np.testing.assert_array_equal(other.embeddings, right.embeddings)
            assert right.report is not None
            assert right.report.encoded_prompts == 0


def test_the_former_name_of_the_pooling_warns(store: Path) -> None:
    with pytest.warns(DeprecationWarning, match="name_pooling"):
        index = LabelIndex.build(["a"], model="builtin:clip", name="x", names="max", store=store)
    with index, pytest.warns(DeprecationWarning, match="name_pooling"):
        assert index.info.names == "max"
