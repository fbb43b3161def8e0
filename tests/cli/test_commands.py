"""Every command, as a user would type it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.numpy import save_file

from tests.support.dng import dng
from tests.support.paths import DATA
from tests.support.pictures import picture
from zsic_index import IndexNotFoundError, builtin
from zsic_index.cli import main
from zsic_index.cli.progress import Progress

WORDS = ("dog face", "pizza", "rocket", "key", "umbrella")


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def done(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def built(labels: Path) -> str:
    done("build", labels, "--model", "builtin:clip", "--name", "things", "--quiet")
    return "things"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two good pictures, a broken one, a hidden one and a text file."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    dog, key = builtin.samples()[0], builtin.samples()[15]
    (folder / "dog.png").write_bytes(dog.read_bytes())
    (folder / "inner" / "key.JPG").write_bytes(key.read_bytes())
    (folder / "broken.png").write_bytes(dog.read_bytes()[:500])
    (folder / ".hidden.png").write_bytes(dog.read_bytes())
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_build_says_what_it_did(labels: Path) -> None:
    arguments = ("build", labels, "--model", "builtin:clip", "--name", "things")
    assert "things: 5 labels, 5 encoded (5 prompts), 0 from the store" in done(*arguments).stdout
    assert "things: 5 labels, 0 encoded (0 prompts), 5 from the store" in done(*arguments).stdout


def test_build_as_json_with_templates(labels: Path) -> None:
    result = done(
        "build", labels, "-m", "builtin:clip", "-n", "things", "--json",
        "-t", "a drawing of {}", "-t", "{}",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert (report["labels"], report["encoded_labels"], report["encoded_prompts"]) == (5, 5, 10)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_build_reads_other_kinds_of_list(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"labels.{suffix}"
    if suffix == "csv":
        path.write_text("label,note\npizza,food\nrocket,space\n")
    else:
        path.write_text(json.dumps(["pizza", {"label": "rocket"}]))
    done("build", path, "-m", "builtin:siglip", "-n", "two")
    assert json.loads(done("info", "two", "--json").stdout)["labels"] == 2


def test_build_warns_of_what_it_took_together_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("pizza\npizza\nPizza\n" + "very " * 200 + "long\n")
    result = done("build", path, "-m", "builtin:clip", "-n", "odd")
    assert "1 labels were given more than once: 'pizza'" in result.stderr
    assert "1 prompts over the token limit were cut: " in result.stderr
    assert "differ only in case or Unicode form" in result.stderr
    assert "odd: 3 labels" in result.stdout


def test_query_as_a_table(built: str) -> None:
    result = done("query", builtin.samples()[0], "--name", built, "--top-k", 2)
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert "dog face" in lines[2]
    assert " %" in lines[2]
    assert len(lines) == 4


def test_query_as_json_csv_and_jsonl_agree(built: str) -> None:
    images = builtin.samples()[:3]
    answers = {}
    for format in ("json", "jsonl", "csv"):
        answers[format] = done(
            "query", *images, "--name", built, "-k", "5", "--format", format
        ).stdout
    as_json = json.loads(answers["json"])
    assert [json.loads(line) for line in answers["jsonl"].splitlines()] == as_json
    assert [entry["image"] for entry in as_json] == [str(path) for path in images]
    rows = list(csv.DictReader(io.StringIO(answers["csv"])))
    assert [row["label"] for row in rows] == [
        prediction["label"] for entry in as_json for prediction in entry["predictions"]
    ]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5] * 3
    for entry in as_json:
        probabilities = [prediction["probability"] for prediction in entry["predictions"]]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities == sorted(probabilities, reverse=True)


def test_a_folder_is_searched_and_one_broken_picture_is_named(built: str, photos: Path) -> None:
    result = run("query", photos, "--name", built, "--format", "jsonl")
    assert result.exit_code == 3
    images = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(entry["image"]).name for entry in images] == ["dog.png", "key.JPG"]
    assert [entry["predictions"][0]["label"] for entry in images] == ["dog face", "key"]
    refused, summary = result.stderr.splitlines()
    assert refused.startswith(f"refused: {photos / 'broken.png'}")
    assert summary == "3 inputs: 2 done, 1 refused"


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """A folder with a photo as JPEG and as RAW, and a HEIC file."""
    folder = tmp_path / "camera"
    folder.mkdir()
    with Image.open(builtin.samples()[0]) as image:
        dog = image.convert("RGB").resize((600, 600))
    dog.save(folder / "IMG_1.JPG", quality=95)
    (folder / "IMG_1.DNG").write_bytes(dng((folder / "IMG_1.JPG").read_bytes(), dog.size))
    heic = DATA / "heif" / "orientation-6.heic"
    (folder / "IMG_2.HEIC").write_bytes(heic.read_bytes())
    return folder


def test_photos_whose_extra_is_missing_are_named(
    built: str, camera: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_pi_heif", "rawpy"):
        monkeypatch.setitem(sys.modules, module, None)
    result = run("query", camera, "--name", built, "--format", "jsonl")
    assert result.exit_code == 3
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [
        str(camera / "IMG_1.JPG")
    ]
    assert result.stderr.splitlines() == [
        f"refused: {camera / 'IMG_1.DNG'}: RAW needs the extra raw: pip install 'zsic-index[raw]'",
        f"refused: {camera / 'IMG_2.HEIC'}: HEIC needs the extra heic: "
        "pip install 'zsic-index[heic]'",
        "3 inputs: 1 done, 2 refused",
    ]


def test_photos_of_cameras_and_phones(built: str, camera: Path) -> None:
    pytest.importorskip("pi_heif")
    pytest.importorskip("rawpy")
    result = done("query", camera, "--name", built, "--format", "jsonl")
    images = [json.loads(line) for line in result.stdout.splitlines()]
    names = [Path(entry["image"]).name for entry in images]
    assert names == ["IMG_1.DNG", "IMG_1.JPG", "IMG_2.HEIC"]
    given = (camera / "IMG_1.DNG").read_bytes()
    result = done("query", "-", "-n", built, "-f", "jsonl", stdin=given)
    of_dog = [*images[:2], json.loads(result.stdout)]
    assert [entry["predictions"][0]["label"] for entry in of_dog] == ["dog face"] * 3
    first, *others = (entry["predictions"][0]["probability"] for entry in of_dog)
    assert others == pytest.approx([first] * 2, abs=1e-5)


def test_globs_standard_input_and_what_is_not_there(built: str, photos: Path) -> None:
    assert (
        len(done("query", photos / "d*.png", "-n", built, "-f", "jsonl").stdout.splitlines()) == 1
    )
    result = done("query", "-", "-n", built, "-f", "jsonl", stdin=(photos / "dog.png").read_bytes())
    assert json.loads(result.stdout)["image"] == "-"
    result = run("query", photos / "*.gif", photos / "no.png", "-n", built, "-f", "csv")
    assert result.exit_code == 3
    assert "no images there" in result.stderr
    assert f"refused: {photos / 'no.png'}" in result.stderr
    assert "2 inputs: 0 done, 2 refused" in result.stderr


def test_list_info_and_rm(built: str, store: Path) -> None:
    assert "things" in done("list").stdout
    (entry,) = json.loads(done("list", "--json").stdout)
    assert (entry["name"], entry["labels"], entry["model_id"]) == (built, 5, "builtin:clip")
    text = done("info", built).stdout
    assert str(store) in text
    assert "This is a photo of {}." in text
    assert "removed things: 5 labels" in done("rm", built).stdout
    assert json.loads(done("list", "--json").stdout) == []
    assert list(store.with_name("store.db.indexes").iterdir()) == []
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM embedding").fetchone() == (5,)


def test_rm_prune_deletes_the_embeddings(built: str, store: Path) -> None:
    done("rm", built, "--prune")
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM embedding").fetchone() == (0,)


def test_verify_rebuilds_a_damaged_file(built: str, store: Path) -> None:
    assert done("verify").stdout.splitlines() == ["things: 5 labels: ok", "store: ok"]
    (file,) = store.with_name("store.db.indexes").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert "things: 5 labels: rebuilt (" in done("verify", built).stdout
    assert done("verify").stdout.splitlines() == ["things: 5 labels: ok", "store: ok"]


def test_verify_reports_damage_in_the_store(built: str, store: Path) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE embedding SET vector = zeroblob(length(vector)) WHERE id = 3")
    result = run("verify")
    assert result.exit_code == 1
    assert "problem: " in result.stderr


def test_db_upgrade(store: Path) -> None:
    assert done("db", "upgrade").stdout.startswith("schema (empty) -> ")
    assert done("db", "upgrade").stdout.endswith("nothing to do\n")
    assert store.exists()


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_import(labels: Path, tmp_path: Path, suffix: str, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((5, 16)).astype(np.float32)
    path = tmp_path / f"vectors.{suffix}"
    if suffix == "npy":
        np.save(path, vectors)
    elif suffix == "npz":
        np.savez(path, text=vectors, other=vectors[:1])
    else:
        save_file({"text": vectors, "other": vectors[:1]}, path)
    arguments = ["import", labels, path, "--logit-scale", "20", "-n", "made"]
    if suffix != "npy":
        result = run(*arguments)
        assert result.exit_code == 1
        assert "--key" in result.stderr
        arguments += ["--key", "text"]
    assert "made: 5 labels" in done(*arguments).stdout
    assert json.loads(done("info", "made", "--json").stdout)["dim"] == 16
    result = run("query", builtin.samples()[0], "-n", "made")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_import_with_a_model_classifies(labels: Path, tmp_path: Path, built: str) -> None:
    from zsic_index import LabelIndex

    with LabelIndex.open(built) as index:
        np.save(tmp_path / "v.npy", index.embeddings)
        scale = index.info.logit_scale
    done(
        "import", labels, tmp_path / "v.npy", "--logit-scale", repr(scale), "-n", "copy",
        "--model", "builtin:clip",
    )  # fmt: skip
    images = builtin.samples()[:2]
    mine, theirs = (
        json.loads(done("query", *images, "-n", name, "-f", "json").stdout)
        for name in ("copy", built)
    )
    for imported, original in zip(mine, theirs, strict=True):
        for left, right in zip(imported["predictions"], original["predictions"], strict=True):
            assert left["label"] == right["label"]
            assert left["probability"] == pytest.approx(right["probability"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query", "x.png", "-n", "nowhere"], ["nowhere", "zsic-index build"]),
        (["info", "nowhere"], ["nowhere", "zsic-index build"]),
        (["rm", "nowhere"], ["nowhere", "zsic-index build"]),
        (["verify", "nowhere"], ["nowhere", "zsic-index build"]),
        (["build", "LABELS", "-m", "builtin:vlip", "-n", "x"], ["builtin:vlip", "builtin:clip"]),
        (["build", "LABELS", "-m", "/no/such/model", "-n", "x"], ["/no/such/model"]),
        (["build", "LABELS", "-m", "nobody/nothing", "-n", "x"], ["nobody/nothing", "builtin:"]),
        (["build", "LABELS", "-m", "builtin:clip", "-n", "x", "-t", "no place"], ["no place"]),
        (["build", "LABELS", "-m", "builtin:clip", "-n", "x", "-t", "{} {}"], ["{} {}"]),
        (["build", "LABELS", "-m", "builtin:clip", "-n", "x", "--device", "abacus"], ["abacus"]),
    ],
)
def test_errors_are_one_line_with_the_value(
    labels: Path, arguments: list[str], words: list[str]
) -> None:
    done("db", "upgrade")
    result = run(*[str(labels) if argument == "LABELS" else argument for argument in arguments])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line
    assert result.stdout == ""


def test_wrong_usage_is_exit_code_2(labels: Path) -> None:
    assert run("build", labels).exit_code == 2
    assert run("query").exit_code == 2
    assert run("build", "no-such-file.txt", "-m", "builtin:clip", "-n", "x").exit_code == 2


def test_verbose_shows_the_trace() -> None:
    done("db", "upgrade")
    with pytest.raises(IndexNotFoundError, match="nowhere"):
        CliRunner().invoke(main, ["info", "nowhere", "--verbose"], catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments", [["list"], ["info", "x"], ["rm", "x"], ["verify"], ["query", "a.png", "-n", "x"]]
)
def test_a_store_that_is_not_there_is_named_and_not_made(store: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"there is no store at {store}" in result.stderr
    assert not store.exists()


def test_an_empty_label_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\n\n")
    result = run("build", path, "-m", "builtin:clip", "-n", "x")
    assert result.exit_code == 1
    assert str(path) in result.stderr


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = done("demo")
    assert "1,623 labels: 1,623 encoded" in result.stdout
    assert "openai/clip-vit-large-patch14" in result.stdout
    page = (tmp_path / "zsic-index-demo.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 40
    assert "1,623 labels: 0 encoded, 1,623 from the store" in done("demo").stdout


def test_a_picture_of_many_pixels_is_refused_before_decoding(built: str, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "bomb.png"
    Image.new("1", (30_000, 30_000)).save(path)
    picture(1).save(tmp_path / "good.png")
    result = run("query", path, tmp_path / "good.png", "-n", built, "-f", "jsonl")
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 1
    assert "900,000,000" in result.stderr


def test_query_a_subset(labels: Path, tmp_path: Path) -> None:
    done("build", labels, "--model", "builtin:clip", "--name", "few")
    image = builtin.samples()[0]
    some = tmp_path / "some.csv"
    some.write_text("label\npizza\nkey\n", encoding="utf-8")
    options = ("--name", "few", "--format", "json", "--top-k", "9", "--over-index")
    classified = json.loads(
        done("query", image, "--labels", some, "--label", "dog face", *options).stdout
    )
    (predictions,) = [entry["predictions"] for entry in classified]
    assert {p["label"] for p in predictions} == {"pizza", "key", "dog face"}
    assert sum(p["probability"] for p in predictions) == pytest.approx(1.0)
    whole = json.loads(done("query", image, "--name", "few", "--format", "json").stdout)
    over_all = {p["label"]: p["probability"] for p in whole[0]["predictions"]}
    for p in predictions:
        assert p["index_probability"] == pytest.approx(over_all[p["label"]], rel=1e-5)
    refused = run("query", image, "--label", "rockets", *options)
    assert refused.exit_code == 1
    assert "nearest: 'rocket'" in refused.stderr
    taken = json.loads(
        done(
            "query", image, "--label", "wolf", "--label", "key", "--encode-missing", *options
        ).stdout
    )
    by_label = {p["label"]: p for p in taken[0]["predictions"]}
    assert by_label["wolf"]["label_id"] is None
    assert by_label["wolf"]["index_probability"] is None
    table = done("query", image, "--label", "key", "--name", "few", "--over-index").stdout
    assert "over the index" in table


def test_query_keeps_images(labels: Path) -> None:
    done("build", labels, "--model", "builtin:clip", "--name", "few")
    options = ("--name", "few", "--format", "json", "--keep-images")
    images = builtin.samples()[:3]
    first = done("query", *images, *options).stdout
    assert done("query", *images, *options).stdout == first
    assert done("query", *images, *options, "--decode", "scaled").exit_code == 0


def test_bench_drop_in(checkpoints: Callable[[str], Path]) -> None:
    model = str(checkpoints("clip"))
    result = run("bench", "drop-in", "--model", model, "--labels", "30", "--rounds", "2")
    assert result.exit_code == 0
    for line in ("stock pipeline", "drop-in, first call", "drop-in, second call", "2 rounds"):
        assert line in result.stdout
    as_json = run("bench", "drop-in", "--model", model, "--labels", "3", "--rounds", "1", "--json")
    report = json.loads(as_json.stdout)
    assert report["machine"]["versions"]["zsic-index"]
    (comparison,) = report["comparisons"]
    assert comparison["contenders"][0]["times_faster_than_first"] == 1.0
    assert all(len(contender["seconds"]) == 1 for contender in comparison["contenders"])


def test_a_log_gets_a_line_of_progress_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(show=True, clock=lambda: now[0])
    for now[0], done_so_far in ((10.0, 512), (31.0, 6_200), (40.0, 6_800), (62.0, 12_400)):
        progress(done_so_far, 82_115)
    assert capsys.readouterr().err.splitlines() == [
        "6,200 of 82,115 labels, 200 labels/s, 0:06:20 left",
        "12,400 of 82,115 labels, 200 labels/s, 0:05:49 left",
    ]
