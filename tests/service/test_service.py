"""The service's answers are the index's own, whoever else asks and whatever is built meanwhile."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.support.libraries import SAMPLES
from tests.support.services import Served, ended, serving, started
from tests.support.stores import copy_store
from zsic_index import IndexNotFoundError, LabelIndex
from zsic_index.calibration import Calibration, FittedOn
from zsic_index.encoders import EncodedImages, Pixels
from zsic_index.encoders.onnx.tower import OnnxTower
from zsic_index.querying.compiled import compile_query
from zsic_index.querying.query import Query

IMAGES = {name: SAMPLES[name].read_bytes() for name in ("dog-face", "red-apple", "frog")}


@pytest.fixture(scope="module")
def built(built_store: Callable[[str], Path]) -> Path:
    return built_store("served")


@pytest.fixture(scope="module")
def service(built: Path) -> Iterator[Served]:
    with serving(built, max_template_sets=2) as found:
        yield found


@pytest.fixture
def index(built: Path) -> Iterator[LabelIndex]:
    with LabelIndex.open("things", store=built) as found:
        yield found


def classified(service: Served, **asked: Any) -> list[dict[str, Any]]:
    images = [
        {"name": name, "data": base64.b64encode(content).decode()}
        for name, content in IMAGES.items()
    ]
    response = httpx2.post(
        f"{service.url}/v1/classify", json={"index": "things", "images": images, **asked}
    )
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    assert [one["image"] for one in found] == list(IMAGES)
    return found


def same(found: list[dict[str, Any]], expected: Any) -> None:
    """Answers of the service are those of an index."""
    for one, other in zip(found, expected, strict=True):
        assert one.get("none_of_these") == other.reason
        for left, right in zip(one["predictions"], other.predictions, strict=True):
            for name, value in left.items():
                known = getattr(right, name)
                if isinstance(value, float):
                    assert value == pytest.approx(known, abs=2e-5), name
                else:
                    assert value == (list(known) if isinstance(known, tuple) else known), name


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"top_k": 2},
        {"labels": ["dog", "pizza"], "over_index": True},
        {"under": "animals"},
        {"rank": "kind"},
        {"rank": "depth 1"},
        {"deepest": 0.5},
        {"deepest": 0.99, "floors": {"kind": 0.1}},
        {"threshold": 0.2},
        {"none_below": 0.9999},
        {"none_within": 0.5, "lang": "de"},
    ],
    ids=str,
)
def test_every_question_is_answered_as_the_index_does(
    service: Served, index: LabelIndex, asked: dict[str, Any]
) -> None:
    query = Query(**asked)
    expected = index.encoder.stream(IMAGES.values(), compile_query(query, index))
    same(classified(service, **asked), expected)


def test_a_form_asks_the_same(service: Served) -> None:
    files = [("images", (name, content)) for name, content in IMAGES.items()]
    data = {"index": "things", "deepest": "0.99", "floors": ["kind=0.1"]}
    response = httpx2.post(f"{service.url}/v1/classify", files=files, data=data)
    expected = classified(service, deepest=0.99, floors={"kind": 0.1})
    for one, other in zip(response.json()["results"], expected, strict=True):
        assert one["image"] == other["image"]
        assert [p["label"] for p in one["predictions"]] == [
            p["label"] for p in other["predictions"]
        ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rank": "genus"}, "no rank 'genus' here"),
        ({"labels": ["dogg face"]}, "not in index"),
        ({"under": "plants"}, "plants"),
        ({"lang": "fr"}, "fr"),
        ({"calibrated": True}, "no calibration"),
        ({"rank": "kind", "deepest": 0.5}, "exclude each other"),
        ({"independent": True, "rank": "kind"}, "softmax"),
    ],
    ids=lambda one: one if isinstance(one, str) else str(one),
)
def test_what_the_index_cannot_answer_is_said(
    service: Served, asked: dict[str, Any], said: str
) -> None:
    image = base64.b64encode(IMAGES["frog"]).decode()
    sent = {"index": "things", "images": [image], **asked}
    response = httpx2.post(f"{service.url}/v1/classify", json=sent)
    assert response.status_code == 422
    assert said in response.json()["detail"]


def test_other_templates(service: Served, index: LabelIndex) -> None:
    other = index.with_templates(["a drawing of a {}.", "{}"])
    expected = other.encoder.stream(IMAGES.values(), compile_query(Query(), other))
    same(classified(service, templates=["a drawing of a {}.", "plain"]), expected)


def test_embeddings_and_their_scores(service: Served, index: LabelIndex) -> None:
    images = [base64.b64encode(content).decode() for content in IMAGES.values()]
    url = f"{service.url}/v1/embeddings"
    numbers = httpx2.post(url, json={"index": "things", "images": images}).json()
    assert numbers["dim"] == 192
    found = np.array([one["embedding"] for one in numbers["results"]], dtype=np.float32)
    np.testing.assert_allclose(found, index.embed(list(IMAGES.values())), atol=1e-6)
    sent = {"index": "things", "images": images, "encoding_format": "base64"}
    packed = [one["embedding"] for one in httpx2.post(url, json=sent).json()["results"]]
    for row, text in zip(found, packed, strict=True):
        np.testing.assert_allclose(
            np.frombuffer(base64.b64decode(text), dtype="<f4"), row, atol=1e-6
        )
    for given in (found.tolist(), packed):
        sent = {"index": "things", "embeddings": given, "top_k": 1}
        scored = httpx2.post(f"{service.url}/v1/score", json=sent).json()["results"]
        assert [one["predictions"][0]["label"] for one in scored] == [
            line[0].label for line in index.score(found, 1)
        ]


def test_prompts(service: Served, index: LabelIndex) -> None:
    prompts = ["This is a photo of dog face.", "{}", ""]
    sent = {"index": "things", "prompts": prompts}
    results = httpx2.post(f"{service.url}/v1/embeddings", json=sent).json()["results"]
    assert [one["prompt"] for one in results] == prompts
    (row,) = index.label_names.rows_of(["dog"]).values()
    np.testing.assert_allclose(results[0]["embedding"], index.embeddings[row], atol=1e-6)
    both = sent | {"images": ["AAAA"]}
    for wrong in (both, {"index": "things"}, {"prompts": ["a<|endoftext|>b"], "index": "things"}):
        assert httpx2.post(f"{service.url}/v1/embeddings", json=wrong).status_code == 422


def test_an_index_without_a_model(service: Served) -> None:
    sent = {"index": "bare", "images": [base64.b64encode(IMAGES["frog"]).decode()]}
    response = httpx2.post(f"{service.url}/v1/classify", json=sent)
    assert response.status_code == 422
    assert "/v1/score" in response.json()["detail"]
    sent = {"index": "bare", "embeddings": [[1.0] * 192]}
    assert httpx2.post(f"{service.url}/v1/score", json=sent).status_code == 200
    assert httpx2.get(f"{service.url}/readyz").status_code == 200


def test_indexes_and_labels_are_listed(service: Served) -> None:
    listed = httpx2.get(f"{service.url}/v1/indexes").json()
    assert [one["name"] for one in listed["indexes"]] == ["bare", "things"]
    assert listed["template_sets"]["photo"] == 7
    assert listed["max_template_sets"] == 2
    things = httpx2.get(f"{service.url}/v1/indexes/things").json()
    assert things == listed["indexes"][1]
    assert (things["labels"], things["ranks"], things["languages"]) == (8, ["kind"], ["de"])
    url = f"{service.url}/v1/indexes/things/labels"
    pages = [httpx2.get(f"{url}?limit=3&offset={offset}").json() for offset in (0, 3, 6, 9)]
    assert {page["total"] for page in pages} == {8}
    assert [one["id"] for page in pages for one in page["labels"]] == [
        *("animals", "dog", "lion", "frog", "food", "apple", "pizza", "car")
    ]
    found = httpx2.get(url, params={"q": "GESICHT"}).json()
    assert [one["path"] for one in found["labels"]] == [["animals", "dog face"]]


def test_images_of_many_requests_are_done_together(built: Path) -> None:
    with serving(built, max_wait=0.2) as service:
        expected = classified(service)
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(classified(service))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for found in answers:
            for one, other in zip(found, expected, strict=True):
                for left, right in zip(one["predictions"], other["predictions"], strict=True):
                    assert left["label"] == right["label"]
                    assert left["probability"] == pytest.approx(right["probability"], abs=1e-5)
        measured = httpx2.get(f"{service.url}/metrics").text
    numbers = dict(line.rsplit(" ", 1) for line in measured.splitlines() if line[0] != "#")
    for stage in ("tower", "scan"):
        images = float(numbers[f'zsic_batch_size_sum{{stage="{stage}"}}'])
        batches = float(numbers[f'zsic_batch_size_count{{stage="{stage}"}}'])
        assert images == 27
        assert images / batches > 1.5
    assert float(numbers['zsic_images_total{outcome="done"}']) == 27


def test_an_index_is_swapped_in_without_a_failed_or_mixed_answer(tmp_path: Path) -> None:
    store = tmp_path / "swapped.db"
    # Odd generations have one list, even ones another; a label is in both under another id's name.
    lists = {1: ["dog face", "frog", "pizza"], 0: ["frog", "lion", "red apple", "automobile"]}

    def build(number: int) -> int:
        with LabelIndex.build(
            lists[number % 2], model="builtin:clip", name="things", store=store
        ) as index:
            return index.info.generation

    assert build(1) == 1
    seen: list[tuple[int, tuple[tuple[str, float], ...]]] = []
    trouble: list[str] = []
    stop = threading.Event()

    def ask(url: str) -> None:
        files = [("images", (name, content)) for name, content in IMAGES.items()]
        with httpx2.Client(timeout=30) as client:
            while not stop.is_set():
                response = client.post(f"{url}/v1/classify", files=files, data={"top_k": "9"})
                if response.status_code != 200:
                    trouble.append(response.text)
                    return
                found = response.json()
                for one in found["results"]:
                    seen.append(
                        (
                            found["generation"],
                            tuple((p["label"], p["probability"]) for p in one["predictions"]),
                        )
                    )

    with serving(store, reload_every=0.02) as service:
        threads = [threading.Thread(target=ask, args=(service.url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(2, 12):
            assert build(number) == number
            time.sleep(0.1)
        LabelIndex.build(lists[1], model="builtin:siglip", name="things", store=store).close()
        _until(lambda: seen[-1][0] == 12, seconds=60)
        stop.set()
        for thread in threads:
            thread.join()
    assert not trouble
    assert len({generation for generation, _ in seen}) >= 4
    for generation, answer in seen:
        odd = generation % 2 or generation == 12
        assert sorted(label for label, _ in answer) == sorted(lists[1 if odd else 0])
        if generation != 12:
            assert sum(probability for _, probability in answer) == pytest.approx(1, abs=1e-6)


def test_an_index_that_goes_is_gone_and_one_that_comes_is_there(
    tmp_path: Path, built: Path
) -> None:
    store = tmp_path / "moving.db"
    LabelIndex.build(["dog"], model="builtin:clip", name="first", store=store).close()
    with serving(store) as service:
        LabelIndex.build(["cat"], model="builtin:clip", name="second", store=store).close()
        names = ["first", "second"]
        _until(lambda: _served(service) == names)
        with LabelIndex.open("first", store=store) as index:
            index.store.indexes.remove("first")
        _until(lambda: _served(service) == ["second"])
        assert 'index="first"' not in httpx2.get(f"{service.url}/metrics").text
        store.rename(tmp_path / "away.db")
        time.sleep(0.3)
        assert _served(service) == ["second"]
        sent = {"images": [base64.b64encode(IMAGES["frog"]).decode()]}
        assert httpx2.post(f"{service.url}/v1/classify", json=sent).status_code == 200


def test_an_index_that_was_calibrated_before_it_was_built_again(tmp_path: Path) -> None:
    store = tmp_path / "fitted.db"
    fitted = Calibration("softmax", None, FittedOn(1, "digest", "2026-11-26"))
    with LabelIndex.build(["dog"], model="builtin:clip", name="pets", store=store) as index:
        index.save_calibration(fitted)
    with serving(store) as service:
        assert httpx2.get(f"{service.url}/v1/indexes/pets").json()["calibrated"]
        LabelIndex.build(["dog", "cat"], model="builtin:clip", name="pets", store=store).close()
        url = f"{service.url}/v1/indexes/pets"
        _until(lambda: httpx2.get(url).json()["labels"] == 2)
        assert not httpx2.get(url).json()["calibrated"]
        sent = {"images": [base64.b64encode(IMAGES["frog"]).decode()], "calibrated": True}
        response = httpx2.post(f"{service.url}/v1/classify", json=sent)
        assert response.status_code == 422
        assert "no calibration" in response.json()["detail"]


def _served(service: Served) -> list[str]:
    listed = httpx2.get(f"{service.url}/v1/indexes").json()["indexes"]
    return [one["name"] for one in listed]


def _until(holds: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


# The command


def test_the_command_serves_and_ends_when_all_is_answered(built: Path) -> None:
    process, url = started("--store", str(built), "--max-wait", "900")
    try:
        body = json.dumps(
            {"index": "things", "images": [base64.b64encode(IMAGES["frog"]).decode()] * 20}
        )
        answers: list[httpx2.Response] = []

        def ask() -> None:
            headers = {"Content-Type": "application/json"}
            answers.append(
                httpx2.post(f"{url}/v1/classify", content=body, headers=headers, timeout=60)
            )

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        _until(
            lambda: "zsic_requests_in_progress 3.0" in httpx2.get(f"{url}/metrics").text,
            seconds=30,
        )
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 3
        assert process.wait(30) == 0
    finally:
        ended(process)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --token-file"),
        (["--name", "nothing"], "index 'nothing' cannot be served"),
        (["--store", "/nowhere/store.db"], "/nowhere/store.db"),
        (["--host", "192.0.2.1", "--allow-anonymous"], "cannot listen on 192.0.2.1"),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else "",
)
def test_what_it_cannot_start_with_is_said(built: Path, arguments: list[str], said: str) -> None:
    from click.testing import CliRunner

    from zsic_index.cli import main

    store = [] if "--store" in arguments else ["--store", str(built)]
    result = CliRunner().invoke(main, ["serve", "--port", "0", *store, *arguments])
    assert result.exit_code in (1, 2)
    assert said in result.output


def test_every_option_is_a_variable(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from zsic_index.cli import main
    from zsic_index.cli.serve import serve

    arguments = ["serve", "--store", str(built)]
    monkeypatch.setenv("ZSIC_SERVE_PORT", "many")
    assert "'many'" in CliRunner().invoke(main, arguments).output
    monkeypatch.setenv("ZSIC_SERVE_PORT", "0")
    monkeypatch.setenv("ZSIC_SERVE_NAME", "nothing")
    assert "index 'nothing' cannot be served" in CliRunner().invoke(main, arguments).output
    for option in serve.params:
        longest = max(option.opts, key=len)[2:].replace("-", "_")
        assert option.name == longest or option.envvar, longest


def test_an_index_whose_model_has_gone(
    tmp_path: Path, clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Path(shutil.copytree(clip_folder, tmp_path / "model"))
    store = tmp_path / "gone.db"
    LabelIndex.build(["cat", "dog"], model=model, name="pets", store=store).close()
    shutil.rmtree(model)
    refused = pytest.raises(IndexNotFoundError, match=r"'pets' cannot be served: .*model")
    with refused, serving(store, names=("pets",)):
        pass
    with serving(store) as service:
        ready = httpx2.get(f"{service.url}/readyz")
        assert ready.status_code == 503
        assert "index 'pets': " in ready.json()["detail"]
        caplog.clear()
        time.sleep(0.5)  # several looks, all of which have been told of
        assert not caplog.records
        shutil.copytree(clip_folder, model)
        _until(lambda: httpx2.get(f"{service.url}/readyz").status_code == 200)


def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from zsic_index.cli import main

    tokens = tmp_path / "tokens"
    for text in ("short\n", "# a comment\n\n"):
        tokens.write_text(text)
        result = CliRunner().invoke(main, ["serve", "--token-file", str(tokens)])
        assert result.exit_code == 2
        assert "shorter than 16" in result.output


def test_images_go_through_the_onnx_tower(
    built_store: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_store(built_store("onnx"), tmp_path / "onnx.db")
    with LabelIndex.open("things", store=store, runtime="torch") as index:
        expected = list(index.encoder.stream(IMAGES.values(), compile_query(Query(), index)))
    batches: list[int] = []
    encode = OnnxTower.encode_images

    def recorded(self: OnnxTower, images: Sequence[Pixels]) -> EncodedImages:
        batches.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(OnnxTower, "encode_images", recorded)
    monkeypatch.setenv("ZSIC_RUNTIME", "auto")
    with serving(store) as service:
        same(classified(service), expected)
    assert sum(batches) >= len(IMAGES)
