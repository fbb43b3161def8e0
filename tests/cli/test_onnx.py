"""ONNX towers on the command line, as a user types it, and exported indexes without the package."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.support import models
from tests.support.pictures import picture
from tests.support.stores import copy_store
from zsic_index import builtin
from zsic_index.cli import main
from zsic_index.encoders.onnx.tower import OnnxTower

DOG = builtin.samples()[0]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def things(built_store: Callable[[str], Path], store: Path) -> str:
    """The name of an index of builtin:clip with an ONNX tower, in the test's own store."""
    copy_store(built_store("onnx"), store)
    return "things"


def tower(store: Path, precision: str = "float32") -> Path:
    (folder,) = store.with_name("store.db.indexes").glob(f"vision-*-{precision}")
    return folder


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that go through ONNX Runtime."""
    sizes: list[int] = []
    encode = OnnxTower.encode_images

    def recorded(self: OnnxTower, images: list[object]) -> object:
        sizes.append(len(images))
        return encode(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxTower, "encode_images", recorded)
    return sizes


def test_write_writes_a_tower_of_other_image_settings_anew_and_only_once(
    things: str, store: Path
) -> None:
    done("onnx", "write", things, "--precision", "int8", "--quiet")
    folder, rounded = tower(store), tower(store, "int8")
    for path in (folder, rounded):
        settings = path / "preprocessor_config.json"
        settings.write_text(settings.read_text().replace('"resample": 3', '"resample": 2'))
    result = done("onnx", "write", things)
    assert result.stderr.splitlines() == [
        f"WARNING: ONNX tower {folder} has other image settings than model builtin:clip: "
        "writing it anew",
        f"WARNING: ONNX tower {rounded} has other image settings: removed",
    ]
    assert not rounded.exists()
    line = result.stdout
    assert line.startswith(f"{folder}: float32, probabilities within ")
    assert line.endswith(
        "of torch's on 200 images (limit 1e-05): its embeddings count as torch's\n"
    )
    before = times(folder)
    assert done("onnx", "write", things).stdout == line
    assert done("onnx", "write", things, "--quiet").output == ""
    assert times(folder) == before


def test_int8_is_measured_on_images(things: str, store: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for sample in builtin.samples()[:3]:
        (photos / sample.name).write_bytes(sample.read_bytes())
    broken = photos / "broken.png"
    broken.write_bytes(DOG.read_bytes()[:500])
    int8 = ("onnx", "write", things, "--precision", "int8")
    assert done(*int8).stdout.endswith("-int8: int8, unmeasured: no images were given\n")
    result = done(*int8, "--images", photos, "--images", builtin.samples()[5])
    assert result.stderr.splitlines() == [
        f"WARNING: left out: {broken}: cannot be read: image file is truncated"
    ]
    measured = (
        "int8, unmeasured, too few images: first label as in float32 on 100.0% of 4 images "
        "(51.0% to 100.0%), cosine 0.9999 on average"
    )
    assert measured in result.stdout
    # What was measured stays.
    assert done(*int8).stdout == result.stdout
    text = done("info", things).stdout
    assert measured in text
    assert "its embeddings count as torch's" in text
    exact, rounded = json.loads(done("info", things, "--json").stdout)["onnx_towers"]
    assert (exact["precision"], exact["images"], exact["agreement"]) == ("float32", 200, None)
    assert exact["change"] < 1e-5 < rounded["change"]
    assert rounded["agreement"]["images"] == 4
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tower(store, "int8").iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("option", [("--images", DOG), ("--force",)])
def test_options_of_int8_are_refused_without_it(option: tuple[str | Path, ...]) -> None:
    result = run("onnx", "write", "things", *option)
    assert result.exit_code == 2
    assert "--images and --force go with --precision int8" in result.stderr


def test_verify_removes_a_damaged_tower(things: str, store: Path) -> None:
    assert done("verify").stdout.splitlines() == ["things: 6 labels: ok", "store: ok"]
    folder = tower(store)
    weights = folder / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    first, last = done("verify").stdout.splitlines()
    assert first == f"things: 6 labels: ok; removed: ONNX tower {weights} is damaged"
    assert last == "store: ok"
    assert not folder.exists()
    assert done("verify").stdout.splitlines() == ["things: 6 labels: ok", "store: ok"]
    result = run("query", DOG, "-n", things, "--runtime", "onnx")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: index 'things' has no ONNX tower in float32: write it with "
        "'zsic-index onnx write things'\n",
    )
    assert "dog face" in done("query", DOG, "-n", things, "--runtime", "auto").stdout


def test_rm_of_the_last_index_removes_the_towers(things: str, store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("sun\nmoon\n")
    done("build", labels, "-m", "builtin:clip", "-n", "others", "--quiet")
    folder = tower(store)
    done("rm", things)
    assert folder.is_dir()
    done("rm", "others")
    assert not list(folder.parent.glob("vision-*"))


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [
        ("onnx", None, [1]),
        ("torch", None, []),
        ("auto", None, [1]),
        (None, "onnx", [1]),
        (None, "auto", [1]),
        ("torch", "onnx", []),
    ],
)
def test_query_takes_the_runtime(
    option: str | None,
    variable: str | None,
    expected: list[int],
    things: str,
    runs: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable:
        monkeypatch.setenv("ZSIC_RUNTIME", variable)
    chosen = ("--runtime", option) if option else ()
    result = done("query", DOG, "-n", things, "-f", "json", *chosen)
    (entry,) = json.loads(result.stdout)
    assert entry["predictions"][0]["label"] == "dog face"
    assert runs == expected


def test_wrong_runtimes_are_refused(things: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("query", DOG, "-n", things, "--runtime", "tensorrt")
    assert result.exit_code == 2
    assert "'tensorrt' is not one of 'auto', 'torch', 'onnx', 'onnx-int8'" in result.stderr
    monkeypatch.setenv("ZSIC_RUNTIME", "tensorrt")
    result = run("query", DOG, "-n", things)
    assert result.exit_code == 2
    assert "env var: 'ZSIC_RUNTIME'" in result.stderr


def test_a_service_has_its_own_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSIC_RUNTIME", "onnx")
    asked = ("query", DOG, "--server", "http://127.0.0.1:9")
    result = run(*asked, "--runtime", "onnx")
    assert result.exit_code == 2
    assert "--runtime cannot be used with --server" in result.stderr
    # The variable may be set for other commands.
    assert run(*asked).exit_code == 1


def test_build_measures_a_tower_with_its_labels(things: str, store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("sun\nmoon\n")
    arguments = ("build", labels, "-m", "builtin:clip", "-n", "others", "--quiet")
    done(*arguments, "--runtime", "torch")
    result = run("query", DOG, "-n", "others", "--runtime", "onnx")
    assert result.exit_code == 1
    assert "not measured with the labels of index 'others'" in result.stderr
    done(*arguments, "--runtime", "onnx")
    record = json.loads((tower(store) / "tower.json").read_text())
    assert record["measured"].keys() == {things, "others"}
    done("query", DOG, "-n", "others", "--runtime", "onnx")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Pictures of several shapes and modes, one of them to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(builtin.samples()[1]) as sample:
        apple = sample.convert("RGB").resize((160, 120))
    apple.save(tmp_path / "turned.jpg", exif=exif)
    apple.convert("L").save(tmp_path / "gray.png")
    apple.convert("CMYK").save(tmp_path / "cmyk.tiff")
    apple.quantize(16).save(tmp_path / "palette.gif", transparency=3)
    picture(3, (19, 500)).save(tmp_path / "narrow.png")
    names = ("turned.jpg", "gray.png", "cmyk.tiff", "palette.gif", "narrow.png")
    return [*builtin.samples()[:3], *(tmp_path / name for name in names)]


RUN_ALONE = """
import runpy, sys
for module in ("zsic_index", "torch", "transformers"):
    sys.modules[module] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_an_exported_index_classifies_without_the_package(
    family: str, built_store: Callable[[str], Path], store: Path, images: list[Path]
) -> None:
    if family == "clip":
        copy_store(built_store("onnx"), store)
    else:
        labels = store.with_name("labels.txt")
        labels.write_text("dog face\npizza\nrocket\nkey\nумбра\nred apple\n", encoding="utf-8")
        model = models.make_siglip(store.with_name("model"))
        done("build", labels, "-m", model, "-n", "things", "--runtime", "onnx", "--quiet")
    folder = store.with_name("exported")
    names = [
        line.split(": ")[0] for line in done("onnx", "export", "things", folder).stdout.splitlines()
    ]
    assert sorted(map(str, folder.iterdir())) == sorted(names)
    ended = subprocess.run(
        [sys.executable, "-c", RUN_ALONE, folder / "classify.py", *images],
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONUTF8": "1"},
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    result = done("query", *images, "-n", "things", "-k", "5", "-f", "json", "--runtime", "torch")
    expected = [
        (entry["image"], prediction["label"], prediction["probability"])
        for entry in json.loads(result.stdout)
        for prediction in entry["predictions"]
    ]
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [(image, label) for image, label, _ in lines] == [row[:2] for row in expected]
    assert [float(line[2]) for line in lines] == pytest.approx(
        [row[2] for row in expected], abs=1e-5
    )


def test_export_needs_a_tower(things: str, store: Path, tmp_path: Path) -> None:
    result = run("onnx", "export", things, tmp_path / "out", "--precision", "int8")
    assert result.exit_code == 1
    assert "'zsic-index onnx write things --precision int8'" in result.stderr
    assert not (tmp_path / "out").exists()
