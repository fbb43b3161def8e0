"""The drop-in against the stock pipeline: same calls and answers, no text tower the second time."""

from __future__ import annotations

import base64
import copy
import functools
import io
import pickle
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import normalizers
from torch.utils.data import Dataset
from transformers import pipeline

from tests.support import models
from tests.support.pictures import picture
from tests.support.processes import Processes
from zsic_index import (
    CachedZeroShotImageClassificationPipeline,
    InputError,
    LabelIndex,
    ModelError,
    TemplateError,
)

pytestmark = pytest.mark.usefixtures("ready_store")

TOLERANCE = 1e-5

TIE = 3e-5
"""Relative: a float32 similarity is good to about 1e-7, and the scale makes 1e-5 of that."""

LABELS = ["cat", "Dog", "a red house!", "blue-sea", "one train", "🦌", "قطة", "plum", "fig"]

KINDS = {
    "one label": ["cat"],
    "two": ["cat", "dog"],
    "duplicates": ["cat", "dog", "cat", "cat"],
    "cases": ["cat", "CAT", "Cat"],
    "punctuation": ["a cat.", "a cat!", "a, cat;", "(a cat)", "{}", "100 %"],
    "other scripts": ["🦌", "قطة", "猫", "кошка", "naïve"],
    "empty": ["", " ", "cat"],
}


def stock(model: Any, **options: Any) -> Any:
    return pipeline(
        "zero-shot-image-classification",
        model=str(model) if isinstance(model, Path) else model,
        **({"dtype": torch.float32, "device": "cpu"} | options),
    )


@functools.cache
def reference(folder: Path) -> Any:
    """Return the stock pipeline of a checkpoint, for tests that change nothing in it."""
    return stock(folder)


def cached(model: Any, **options: Any) -> Any:
    return stock(model, pipeline_class=CachedZeroShotImageClassificationPipeline, **options)


@pytest.fixture(params=models.MAKERS)
def folder(request: pytest.FixtureRequest, checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{seed}.png" for seed in range(5)]
    for seed, path in enumerate(paths):
        picture(seed, (64 + 10 * seed, 60)).save(path)
    return paths


def same(found: Any, expected: Any) -> None:
    """Same order of labels and same scores, for one image or a list of them."""
    if expected and isinstance(expected[0], list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        return
    assert [set(entry) for entry in found] == [set(entry) for entry in expected]
    scores = [[entry["score"] for entry in entries] for entries in (found, expected)]
    np.testing.assert_allclose(scores[0], scores[1], atol=TOLERANCE)
    for mine, theirs in zip(found, expected, strict=True):
        if mine["label"] != theirs["label"]:  # a tie, as far as float32 can tell
            assert mine["score"] == pytest.approx(theirs["score"], rel=TIE)


class _NoTextTower:
    def __call__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the text tower was used")


# The same answers


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind(folder: Path, kind: str) -> None:
    same(
        cached(folder)(picture(1), candidate_labels=KINDS[kind]),
        reference(folder)(picture(1), candidate_labels=KINDS[kind]),
    )


def test_a_thousand_labels_that_spread(folder: Path) -> None:
    labels = [f"{word} {n}" for n in range(200) for word in ("cat", "dog", "sea", "tree", "fig")]
    expected = reference(folder)(picture(2), candidate_labels=labels)
    same(cached(folder)(picture(2), candidate_labels=labels), expected)
    assert expected[0]["score"] >= 10 / len(labels)


def test_inputs_of_every_kind(folder: Path, files: list[Path]) -> None:
    mine, theirs = cached(folder), reference(folder)
    encoded = base64.b64encode(files[0].read_bytes()).decode()
    for images in (
        str(files[0]),
        Image.open(files[1]),
        encoded,
        [str(path) for path in files],
        [Image.open(path) for path in files],
    ):
        same(mine(images, candidate_labels=LABELS), theirs(images, candidate_labels=LABELS))


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_batches_generators_and_data_sets(folder: Path, files: list[Path], batch_size: int) -> None:
    class Pictures(Dataset[str]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, row: int) -> str:
            return str(files[row])

    mine = cached(folder)
    expected = reference(folder)([str(path) for path in files], candidate_labels=LABELS)
    options = {"candidate_labels": LABELS, "batch_size": batch_size}
    same(mine([str(path) for path in files], **options), expected)
    same(list(mine((str(path) for path in files), **options)), expected)
    same(list(mine(Pictures(), **options)), expected)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "CMYK", "I;16", "LA"])
def test_images_of_every_mode(clip_folder: Path, mode: str) -> None:
    image = picture(3)
    if mode == "I;16":
        image = Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16)) * 257)
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode in ("CMYK", "I;16") else "PNG")
    for source in (image, Image.open(file)):
        same(
            cached(clip_folder)(source, candidate_labels=LABELS),
            reference(clip_folder)(source, candidate_labels=LABELS),
        )


def test_exif_orientation(clip_folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    picture(4).save(path, exif=exif, quality=95)
    same(
        cached(clip_folder)(str(path), candidate_labels=LABELS),
        reference(clip_folder)(str(path), candidate_labels=LABELS),
    )


@pytest.mark.parametrize("template", ["{}", "a {} there", "100 % {}", "日本 {}"])
def test_templates(folder: Path, template: str) -> None:
    options = {"candidate_labels": LABELS, "hypothesis_template": template}
    same(cached(folder)(picture(1), **options), reference(folder)(picture(1), **options))


def test_parameters_given_at_the_start(clip_folder: Path) -> None:
    options = {"candidate_labels": LABELS, "hypothesis_template": "one {}"}
    same(
        cached(clip_folder, **options)(picture(1), candidate_labels=["cat", "dog"]),
        stock(clip_folder, **options)(picture(1), candidate_labels=["cat", "dog"]),
    )


def test_the_old_name_of_the_first_argument(clip_folder: Path) -> None:
    same(
        cached(clip_folder)(None, images=picture(1), candidate_labels=LABELS),
        reference(clip_folder)(picture(1), candidate_labels=LABELS),
    )
    with pytest.raises(ValueError, match="images"):
        cached(clip_folder)(None, candidate_labels=LABELS)


def test_copies_of_one_image_in_batches(folder: Path) -> None:
    options = {"candidate_labels": ["A", "B", "C"], "batch_size": 2}
    found = cached(folder)([picture(1)] * 5, **options)
    assert len(found) == 5
    same(found, reference(folder)([picture(1)] * 5, **options))


def test_results_are_plain_values(folder: Path) -> None:
    (first, *_) = cached(folder)(picture(1), candidate_labels=["a", "b", "c"])
    assert {key: type(value) for key, value in first.items()} == {"score": float, "label": str}


def test_float16(folder: Path) -> None:
    found = cached(folder, dtype=torch.float16)(picture(1), candidate_labels=["a", "b", "c"])
    expected = reference(folder)(picture(1), candidate_labels=["a", "b", "c"])
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=0.02)


def test_tokenizer_options_change_nothing_as_in_the_stock_pipeline(clip_folder: Path) -> None:
    options = {"candidate_labels": LABELS, "tokenizer_kwargs": {"return_token_type_ids": False}}
    same(cached(clip_folder)(picture(1), **options), reference(clip_folder)(picture(1), **options))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a picture on a server of this machine."""
    picture(1).save(tmp_path / "picture.png")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/picture.png"
    server.shutdown()
    server.server_close()


def test_addresses(clip_folder: Path, address: str) -> None:
    options = {"candidate_labels": LABELS, "timeout": 5.0}
    same(cached(clip_folder)(address, **options), reference(clip_folder)(picture(1), **options))


def test_a_server_that_says_nothing_runs_into_the_timeout(clip_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/picture.png"
        for classifier in (cached(clip_folder), reference(clip_folder)):
            with pytest.raises(Exception, match=r"(?i)timed out"):
                classifier(address, candidate_labels=LABELS, timeout=0.2)


def test_device_arguments(clip_folder: Path) -> None:
    expected = reference(clip_folder)(picture(1), candidate_labels=LABELS)
    for device in (-1, "cpu", torch.device("cpu")):
        same(cached(clip_folder, device=device)(picture(1), candidate_labels=LABELS), expected)


def test_other_families_are_refused(tmp_path: Path) -> None:
    config = transformers.CLIPSegConfig(
        text_config=models.TOWER | {"vocab_size": 99},
        vision_config=models.VISION,
        extract_layers=[0],
    )
    transformers.CLIPSegModel(config).save_pretrained(tmp_path)
    models._clip_tokenizer().save_pretrained(tmp_path)
    models._clip_images(tmp_path)
    with pytest.raises(ModelError, match=r"'clipseg' is not supported; supported: align, altclip"):
        cached(tmp_path)


def test_bfloat16_towers_are_as_near_to_float32_as_the_stock_pipeline_s(clip_folder: Path) -> None:
    """The stock pipeline also rounds its logits; neither is exact, so both are held to float32."""
    exact = reference(clip_folder)
    worst = {}
    for name, make in (("mine", cached), ("theirs", stock)):
        rough = make(clip_folder, dtype=torch.bfloat16)
        assert rough.model.dtype == torch.bfloat16
        worst[name] = max(
            abs(a["score"] - b["score"])
            for seed in range(12)
            for a, b in zip(
                sorted(rough(picture(seed), candidate_labels=LABELS), key=lambda e: e["label"]),
                sorted(exact(picture(seed), candidate_labels=LABELS), key=lambda e: e["label"]),
                strict=True,
            )
        )
    assert 0 < worst["mine"] <= max(worst["theirs"], 0.02)


# The cache


def test_no_text_tower_for_known_prompts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = reference(folder)(picture(1), candidate_labels=LABELS)
    cached(folder)(picture(2), candidate_labels=LABELS)
    again = cached(folder)
    monkeypatch.setattr(again.model, "get_text_features", _NoTextTower())
    same(again(picture(1), candidate_labels=LABELS), expected)
    same(
        again(picture(1), candidate_labels=LABELS[::-1]),
        reference(folder)(picture(1), candidate_labels=LABELS[::-1]),
    )
    with pytest.raises(AssertionError, match="text tower"):
        again(picture(1), candidate_labels=[*LABELS, "something new"])
    with pytest.raises(AssertionError, match="text tower"):
        again(picture(1), candidate_labels=LABELS, hypothesis_template="another {}")


def test_no_text_tower_in_a_new_process(
    clip_folder: Path, store: Path, processes: Processes
) -> None:
    cached(clip_folder)(picture(1), candidate_labels=LABELS)
    processes.run(classify_without_text_tower, clip_folder, store)


def classify_without_text_tower(folder: Path, store: Path) -> None:
    torch.set_num_threads(1)
    classifier = cached(folder, store=store)
    classifier.model.get_text_features = None
    assert len(classifier(picture(1), candidate_labels=LABELS)) == len(LABELS)


def in_place(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight[:24] *= -1


def through_data(weight: torch.Tensor) -> None:
    weight.data[:24] *= -1


def by_another_tensor(weight: torch.Tensor) -> None:
    weight.data = torch.cat([-weight.data[:24], weight.data[24:]])


@pytest.mark.parametrize("change", [in_place, through_data, by_another_tensor])
def test_weights_changed_in_memory_are_noticed(
    clip_folder: Path, change: Callable[[torch.Tensor], None]
) -> None:
    mine = cached(clip_folder)
    before = mine(picture(1), candidate_labels=LABELS)
    change(mine.model.text_projection.weight)
    after = mine(picture(1), candidate_labels=LABELS)
    theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
    same(after, theirs(picture(1), candidate_labels=LABELS))
    assert max(abs(a["score"] - b["score"]) for a, b in zip(before, after, strict=True)) > 1e-3


def row_through_data(model: Any) -> None:
    weight = model.text_model.embeddings.token_embedding.weight
    for row in range(7, 80):
        weight.data[row] = torch.randn(weight.shape[1], generator=torch.manual_seed(row))


def flipped_through_data(model: Any) -> None:
    weight = model.text_projection.weight
    weight.data.copy_(weight.data.flip(0))


def another_activation(model: Any) -> None:
    for layer in model.text_model.encoder.layers:
        layer.mlp.activation_fn = torch.nn.Tanh()


class Adapter(torch.nn.Linear):
    """Adds to a layer, by a number that is no tensor, and can be switched off, as PEFT's do."""

    def __init__(self, layer: torch.nn.Linear, scaling: float) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.layer, self.scaling, self.switched_off = layer, {"default": scaling}, False
        torch.nn.init.normal_(self.weight, generator=torch.manual_seed(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added = self.scaling["default"] * super().forward(x)
        return self.layer(x) if self.switched_off else self.layer(x) + added


def adapted(scaling: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.text_projection = Adapter(model.text_projection, scaling).eval()

    return change


@pytest.mark.parametrize(
    "change",
    [row_through_data, flipped_through_data, another_activation, adapted(0.1)],
    ids=["rows", "order", "activation", "adapter"],
)
def test_what_the_tower_computes_is_what_counts(
    clip_folder: Path, change: Callable[[Any], None]
) -> None:
    mine = cached(clip_folder)
    before = mine(picture(1), candidate_labels=LABELS)
    change(mine.model)
    theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
    expected = theirs(picture(1), candidate_labels=LABELS)
    same(mine(picture(1), candidate_labels=LABELS), expected)
    assert before != expected
    # The untouched model gets its own again.
    assert cached(clip_folder)(picture(1), candidate_labels=LABELS) == before


def test_an_adapter_s_numbers_and_switches_are_part_of_it(clip_folder: Path) -> None:
    for scaling in (0.1, 0.3):
        mine = cached(clip_folder)
        adapted(scaling)(mine.model)
        theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
        for off in (False, True):
            mine.model.text_projection.switched_off = off
            same(
                mine(picture(1), candidate_labels=LABELS),
                theirs(picture(1), candidate_labels=LABELS),
            )


def test_a_tokenizer_changed_in_place_is_noticed(clip_folder: Path) -> None:
    mine = cached(clip_folder)
    before = mine(picture(1), candidate_labels=["CAT", "DOG"])
    mine.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("CAT", "tree")
    theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
    expected = theirs(picture(1), candidate_labels=["CAT", "DOG"])
    same(mine(picture(1), candidate_labels=["CAT", "DOG"]), expected)
    assert before != expected


def test_training_mode_leaves_nothing_behind(
    checkpoints: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoints("chinese_clip")  # has dropout
    mine = cached(folder)
    mine.model.train()
    mine(picture(1), candidate_labels=LABELS)
    mine(picture(1), candidate_labels=LABELS)
    assert caplog.text.count("in training mode") == 1
    same(
        cached(folder)(picture(1), candidate_labels=LABELS),
        reference(folder)(picture(1), candidate_labels=LABELS),
    )


def test_autocast_leaves_nothing_behind(clip_folder: Path) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        cached(clip_folder)(picture(1), candidate_labels=LABELS)
    same(
        cached(clip_folder)(picture(1), candidate_labels=LABELS),
        reference(clip_folder)(picture(1), candidate_labels=LABELS),
    )


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_weights_that_cannot_be_seen_are_not_kept(clip_folder: Path, store: Path) -> None:
    for seed in (0, 1):
        mine = cached(clip_folder)
        layer = torch.nn.Linear(64, 48, bias=False)
        torch.nn.init.normal_(layer.weight, generator=torch.manual_seed(seed))
        hidden = torch.jit.trace(layer, torch.zeros(1, 64))
        del mine.model.text_projection
        mine.model.text_projection = hidden
        theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
        same(mine(picture(1), candidate_labels=LABELS), theirs(picture(1), candidate_labels=LABELS))
    with closing(sqlite3.connect(store)) as connection:
        for table in ("encoder", "embedding"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_threads_that_call_after_a_change(clip_folder: Path) -> None:
    mine = cached(clip_folder)
    mine(picture(1), candidate_labels=LABELS)
    in_place(mine.model.text_projection.weight)
    theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
    expected = theirs(picture(1), candidate_labels=LABELS)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(mine, picture(1), candidate_labels=LABELS) for _ in range(6)]
    for call in calls:
        same(call.result(), expected)


def test_an_interrupted_look_changes_nothing(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = cached(clip_folder)
    mine(picture(1), candidate_labels=LABELS)
    in_place(mine.model.text_projection.weight)
    with monkeypatch.context() as patch:
        patch.setattr("zsic_index.pipeline.compute_fingerprint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mine(picture(1), candidate_labels=LABELS)
    theirs = stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)
    same(mine(picture(1), candidate_labels=LABELS), theirs(picture(1), candidate_labels=LABELS))


def interrupted(*_: Any) -> str:
    raise KeyboardInterrupt


def test_a_scale_changed_in_memory_is_noticed(siglip_folder: Path) -> None:
    mine = cached(siglip_folder)
    mine(picture(1), candidate_labels=LABELS)
    with torch.no_grad():
        mine.model.logit_bias.add_(1.0)
    same(
        mine(picture(1), candidate_labels=LABELS),
        stock(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)(
            picture(1), candidate_labels=LABELS
        ),
    )


@pytest.mark.parametrize("change", ["weights", "dtype", "tokenizer", "template"])
def test_what_changes_is_a_miss(
    clip_folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(clip_folder)(picture(1), candidate_labels=LABELS)
    other = cached(clip_folder, dtype=torch.bfloat16 if change == "dtype" else torch.float32)
    options: dict[str, Any] = {"candidate_labels": LABELS}
    if change == "weights":
        with torch.no_grad():
            other.model.text_model.embeddings.token_embedding.weight[7, 0] += 1e-6
    elif change == "tokenizer":
        other.tokenizer = copy.deepcopy(other.tokenizer)
        other.tokenizer.add_tokens(["plum"])
    elif change == "template":
        options["hypothesis_template"] = "This is a photo of {} ."
    monkeypatch.setattr(other.model, "get_text_features", _NoTextTower())
    with pytest.raises(AssertionError, match="text tower"):
        other(picture(1), **options)


# Indexes


def test_an_index_as_candidate_labels(folder: Path) -> None:
    labels = [f"{word} {n}" for n in range(10) for word in ("cat", "dog", "sea")]
    LabelIndex.build(labels, model=folder, name="things").close()
    mine = cached(folder)
    same(
        mine(picture(1), candidate_labels="things"),
        reference(folder)(picture(1), candidate_labels=labels),
    )
    expected = reference(folder)([picture(1), picture(2)], candidate_labels=labels)
    found = mine([picture(1), picture(2)], candidate_labels="things", top_k=3)
    same(found, [entries[:3] for entries in expected])


def test_an_index_of_another_model_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    other = models.make_clip(tmp_path / "other", seed=1)
    LabelIndex.build(["cat", "dog"], model=other, name="things").close()
    with pytest.raises(ModelError, match=r"'things' was not built with this model"):
        cached(clip_folder)(picture(1), candidate_labels="things")


def test_an_index_is_held_against_the_model_at_every_call(clip_folder: Path) -> None:
    LabelIndex.build(["cat", "dog"], model=clip_folder, name="things").close()
    mine = cached(clip_folder)
    mine(picture(1), candidate_labels="things")
    weight = mine.model.text_projection.weight
    with torch.no_grad():
        weight[0, 0] += 1e-4
    with pytest.raises(ModelError, match="was not built with this model as it is in memory"):
        mine(picture(1), candidate_labels="things")


def test_an_index_that_was_built_again_is_opened_again(clip_folder: Path) -> None:
    LabelIndex.build(["cat", "dog"], model=clip_folder, name="things").close()
    mine = cached(clip_folder)
    mine(picture(1), candidate_labels="things")
    LabelIndex.build(["cat", "dog", "sea"], model=clip_folder, name="things").close()
    assert len(mine(picture(1), candidate_labels="things")) == 3


def test_an_index_of_another_dtype_says_so(clip_folder: Path) -> None:
    LabelIndex.build(["cat", "dog"], model=clip_folder, name="things").close()
    with pytest.raises(ModelError, match=r"built in float32, this pipeline computes in bfloat16"):
        cached(clip_folder, dtype=torch.bfloat16)(picture(1), candidate_labels="things")
    with pytest.raises(ModelError, match="dtype is float64"):
        cached(clip_folder, dtype=torch.float64)


def test_no_text_tower_for_an_index(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LabelIndex.build(["cat", "dog"], model=clip_folder, name="things").close()
    mine = cached(clip_folder)
    monkeypatch.setattr(mine.model, "get_text_features", _NoTextTower())
    assert len(mine(picture(1), candidate_labels="things")) == 2


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2], np.arange(3), [1.5, 2], ["cat", None], (1, True, 1.0), {"cat": 1, "dog": 2}],
    ids=str,
)
def test_labels_that_are_no_texts(clip_folder: Path, labels: Any) -> None:
    found = cached(clip_folder)(picture(1), candidate_labels=labels)
    expected = reference(clip_folder)(picture(1), candidate_labels=list(labels))
    assert [type(entry["label"]) for entry in found] == [type(e["label"]) for e in expected]
    np.testing.assert_allclose(
        [entry["score"] for entry in found], [e["score"] for e in expected], atol=TOLERANCE
    )


def test_labels_that_can_be_gone_through_once(clip_folder: Path) -> None:
    found = cached(clip_folder)([picture(1), picture(2)], candidate_labels=iter(LABELS))
    same(found, reference(clip_folder)([picture(1), picture(2)], candidate_labels=LABELS))


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "3", True])
def test_top_k_that_is_none(clip_folder: Path, top_k: Any) -> None:
    with pytest.raises(InputError, match="top_k"):
        cached(clip_folder)(picture(1), candidate_labels=LABELS, top_k=top_k)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_and_pickles(clip_folder: Path, copied: Callable[[Any], Any]) -> None:
    mine = cached(clip_folder)
    expected = mine(picture(1), candidate_labels=LABELS)
    same(copied(mine)(picture(1), candidate_labels=LABELS), expected)


def test_an_index_has_its_own_templates(clip_folder: Path) -> None:
    LabelIndex.build(["cat", "dog"], model=clip_folder, name="things", templates="{}").close()
    with pytest.raises(TemplateError, match="leave hypothesis_template out"):
        cached(clip_folder)(picture(1), candidate_labels="things", hypothesis_template="a {}")


def test_top_k_of_labels(clip_folder: Path) -> None:
    expected = reference(clip_folder)(picture(1), candidate_labels=LABELS)
    same(cached(clip_folder)(picture(1), candidate_labels=LABELS, top_k=2), expected[:2])


# Where the stock pipeline fails


def test_over_long_labels_are_cut_and_reported(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = "cat and dog " * 100
    found = cached(folder)(picture(1), candidate_labels=[long, "cat"])
    assert {entry["label"] for entry in found} == {long, "cat"}
    assert all(0 <= entry["score"] <= 1 for entry in found)
    assert "1 prompts over the token limit were cut, such as 'This is a photo of cat and" in (
        caplog.text
    )


def test_a_tokenizer_s_own_limit_cuts_nothing(checkpoints: Callable[[str], Path]) -> None:
    """The pipeline goes by what the tower takes, not by what its tokenizer recommends."""
    labels = ["cat " * 20, "cat " * 20 + "dog", "sea"]
    for name in ("clip", "blip", "chinese_clip", "align", "altclip", "metaclip_2"):
        mine, theirs = cached(checkpoints(name)), stock(checkpoints(name))
        mine.tokenizer.model_max_length = theirs.tokenizer.model_max_length = 8
        same(
            cached(mine.model, tokenizer=mine.tokenizer, image_processor=mine.image_processor)(
                picture(1), candidate_labels=labels
            ),
            theirs(picture(1), candidate_labels=labels),
        )


@pytest.mark.parametrize("labels", [None, [], ()])
def test_no_labels(clip_folder: Path, labels: Any) -> None:
    with pytest.raises(InputError, match="candidate_labels"):
        cached(clip_folder)(picture(1), candidate_labels=labels)


@pytest.mark.parametrize("template", ["no place", "{} and {}", "{0.__class__} {}", "{:>9}"])
def test_templates_that_are_refused(clip_folder: Path, template: str) -> None:
    with pytest.raises(TemplateError):
        cached(clip_folder)(picture(1), candidate_labels=LABELS, hypothesis_template=template)
