"""Image embeddings that are kept: found again by content, never where anything else differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.support.dng import dng
from tests.support.paths import DATA
from tests.support.pictures import picture
from zsic_index import LabelIndex, encoders
from zsic_index.errors import ImageError
from zsic_index.store import Store

pytestmark = pytest.mark.usefixtures("ready_store")

LABELS = ["cat", "dog", "sea", "old tree"]


@pytest.fixture
def model(clip_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(clip_folder, folder)
    LabelIndex.build(LABELS, model=folder, name="things").close()
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        picture(number, (400, 300)).save(path, quality=95)
    return paths


class Counting:
    """Counts the images that go through the vision tower."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = 0
        load = encoders.load

        def counted(*arguments: Any, **options: Any) -> Any:
            encoder = load(*arguments, **options)
            encode = encoder.encode_images

            def encode_images(images: Any) -> Any:
                self.images += len(images)
                return encode(images)

            encoder.encode_images = encode_images  # type: ignore[method-assign]
            return encoder

        monkeypatch.setattr(encoders, "load", counted)


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def ask(photos: list[Path], **options: Any) -> list[Any]:
    with LabelIndex.open("things", keep_images=True, **options) as index:
        return index.classify(photos)


def test_the_second_time_no_model_is_loaded(
    model: Path, photos: list[Path], tower: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(photos)
    assert tower.images == len(photos)
    monkeypatch.setattr(encoders, "load", None)
    assert ask(photos) == first
    assert ask(photos[::-1]) == first[::-1]


def test_only_new_content_is_encoded(
    model: Path, photos: list[Path], tower: Counting, tmp_path: Path
) -> None:
    first = ask(photos[:3])
    moved = photos[0].rename(tmp_path / "moved.jpg")
    copied = Path(shutil.copy(photos[1], tmp_path / "copied.jpg"))
    found = ask([moved, photos[3], copied])
    assert (found[0], found[2]) == (first[0], first[1])
    assert tower.images == 4
    picture(9).save(photos[2])  # another picture under the same name
    assert ask([photos[2]]) != first[2:]
    assert tower.images == 5


def test_bytes_and_paths_share_and_pictures_have_their_pixels(
    model: Path, photos: list[Path], tower: Counting
) -> None:
    ask(photos[:1])
    ask([photos[0].read_bytes()])
    assert tower.images == 1
    ask([Image.open(photos[0])])
    ask([Image.open(photos[0])])
    assert tower.images == 2


def test_raw_and_heic_are_found_by_their_content(
    model: Path, photos: list[Path], tower: Counting, tmp_path: Path
) -> None:
    pytest.importorskip("pi_heif")
    pytest.importorskip("rawpy")
    picture(1, (600, 400)).save(tmp_path / "preview.jpg")
    preview = (tmp_path / "preview.jpg").read_bytes()
    camera, phone = tmp_path / "a.dng", tmp_path / "b.heic"
    camera.write_bytes(dng(preview, (600, 400)))
    shutil.copy(DATA / "heif" / "orientation-6.heic", phone)
    first = ask([camera, phone])
    assert tower.images == 2
    # Other metadata, the same preview; the preview itself; and what was a file as bytes.
    camera.write_bytes(camera.read_bytes().replace(b"Maker One", b"Maker Two"))
    again = ask([camera, phone]), ask([camera.read_bytes(), phone.read_bytes()])
    assert (*again, ask([preview, phone])) == (first, first, first)
    assert tower.images == 2


def test_nothing_is_kept_unless_asked_for(
    model: Path, photos: list[Path], tower: Counting, store: Path
) -> None:
    with Store.open(store) as opened:
        before = opened.encoders.find(encoders.resolve(model).image_fingerprint)
    with LabelIndex.open("things") as index:
        index.classify(photos)
        index.classify(photos)
    assert before is None
    assert tower.images == 2 * len(photos)


def test_refused_images_among_kept_ones(
    model: Path, photos: list[Path], tower: Counting, tmp_path: Path
) -> None:
    kept = ask(photos[:2])
    with LabelIndex.open("things", keep_images=True) as index:
        found = list(index.stream([photos[0], b"broken", photos[1], tmp_path / "none", photos[2]]))
    assert [isinstance(result, ImageError) for result in found] == [False, True, False, True, False]
    assert [found[0], found[2]] == kept
    assert tower.images == 3


def change_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_file(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {"note": "changed"}))

    return change


def add_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torchvision is there decides which image processor transformers takes."""
    libraries = encoders.checkpoint.image_libraries()
    other = [one for one in libraries if "torchvision" not in one]
    other = other if other != libraries else [*libraries, "torchvision 0"]
    for module in ("checkpoint", "open_clip.files"):
        monkeypatch.setattr(f"zsic_index.encoders.{module}.image_libraries", lambda: other)


@pytest.mark.parametrize(
    ("change", "labels_too"),
    [
        (change_weights, True),
        (change_file("config.json"), True),
        (change_file("tokenizer_config.json"), True),
        (change_file("preprocessor_config.json"), False),
        (add_torchvision, False),
    ],
    ids=["weights", "config", "tokenizer file", "image settings", "image backend"],
)
def test_what_changes_is_a_miss(
    model: Path,
    photos: list[Path],
    tower: Counting,
    change: Callable[[Path, pytest.MonkeyPatch], None],
    labels_too: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask(photos)
    before = encoders.resolve(model)
    change(model, monkeypatch)
    after = encoders.resolve(model)
    assert (after.fingerprint != before.fingerprint) == labels_too
    # Labels that depend on it are encoded anew; the images are in any case.
    with LabelIndex.build(LABELS, model=model, name="things") as index:
        assert index.report is not None
        assert index.report.encoded_labels == (len(LABELS) if labels_too else 0)
    ask(photos)
    assert tower.images == 2 * len(photos)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype_is_a_miss(
    model: Path, photos: list[Path], tower: Counting, dtype: Any
) -> None:
    ask(photos)
    with LabelIndex.build(LABELS, model=model, name="things", dtype=dtype) as index:
        assert index.report is not None
        assert index.report.encoded_labels == len(LABELS)
    ask(photos)
    assert tower.images == 2 * len(photos)


def test_another_template_is_a_miss_for_labels_alone(
    model: Path, photos: list[Path], tower: Counting
) -> None:
    ask(photos)
    with LabelIndex.build(LABELS, model=model, name="things", templates="a {}") as index:
        assert index.report is not None
        assert index.report.encoded_labels == len(LABELS)
    ask(photos)
    assert tower.images == len(photos)


def test_another_way_of_decoding_is_a_miss(
    model: Path, photos: list[Path], tower: Counting
) -> None:
    exact = ask(photos)
    scaled = ask(photos, decode="scaled")
    assert tower.images == 2 * len(photos)
    assert exact != scaled
    for one, other in zip(exact, scaled, strict=True):
        assert one[0].similarity == pytest.approx(other[0].similarity, abs=0.05)
    assert (ask(photos), ask(photos, decode="scaled")) == (exact, scaled)
    assert tower.images == 2 * len(photos)


def test_every_encoder_says_how_large_its_images_are(
    checkpoints: Callable[[str], Path],
) -> None:
    expected = {"clip": 32, "align": 36, "blip": 32, "siglip": 32, "siglip2": 40}
    for name, side in expected.items():
        encoder = encoders.load(encoders.resolve(checkpoints(name)), device="cpu")
        assert encoder.image_size == side
        assert np.isfinite(encoder.encode_images([encoder.preprocess(picture(1))]).embeddings).all()
