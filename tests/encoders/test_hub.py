"""Checkpoints from the Hub: the real huggingface_hub, against a stand-in on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import pipeline

from tests.support import models
from tests.support.hub import Hub, Repository, serve_hub
from tests.support.paths import ROOT
from tests.support.pictures import picture
from zsic_index import LabelIndex, encoders
from zsic_index.cli import main
from zsic_index.errors import ModelError

ID = "some/clip"
LABELS = ["cat", "dog", "a red house", "the blue sea"]
TEXT_FILES = {
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running stand-in that this process's huggingface_hub takes for the Hub; an empty cache."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serve_hub() as hub:
        constants = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }
        for name, value in constants.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A CLIP's folder that a test may change before it adds it to the Hub."""
    return Path(shutil.copytree(clip_folder, tmp_path / "folder"))


@pytest.fixture
def repository(hub: Hub, folder: Path) -> Repository:
    return hub.add(ID, folder)


def refused(model: str = ID, revision: str | None = None) -> str:
    """Return the message of a checkpoint that is refused."""
    with pytest.raises(ModelError) as refusal:
        encoders.resolve(model, revision)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"model {model}: ")
    return message.removeprefix(f"model {model}: ")


def put_other_formats(folder: Path) -> None:
    """Add files that a repository may have and that are not needed."""
    for name in (
        *("tf_model.h5", "flax_model.msgpack", "model.fp16.safetensors", "pytorch_model.fp16.bin"),
        *("onnx/model.onnx", "onnx/config.json", "README.md", "training_args.bin"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")


def change(folder: Path) -> None:
    """Change a weight."""
    state = load_file(folder / "model.safetensors")
    state["text_projection.weight"] *= -1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


# Files


def test_the_first_download_fetches_what_is_needed(hub: Hub, folder: Path) -> None:
    put_other_formats(folder)
    shutil.copy(folder / "model.safetensors", folder / "pytorch_model.bin")
    repository = hub.add(ID, folder)
    checkpoint = encoders.resolve(ID)
    assert checkpoint.revision == repository.refs["main"]
    assert hub.fetched() == TEXT_FILES | {"model.safetensors"}
    assert hub.requests[0] == ("GET", f"/api/models/{ID}")
    assert encoders.load(checkpoint, device="cpu").info.dim == 48


def test_a_complete_snapshot_is_used_without_a_request(
    hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = encoders.resolve(ID)
    hub.requests.clear()
    assert encoders.resolve(ID) == checkpoint
    assert encoders.resolve(ID, checkpoint.revision) == checkpoint
    encoders.load(checkpoint, device="cpu")
    assert hub.requests == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert encoders.resolve(ID) == checkpoint


@pytest.mark.parametrize("pickled", [False, True])
def test_a_stopped_hub_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, folder: Path, pickled: bool
) -> None:
    if pickled:
        models.pickle_weights(folder, parts=2)
    with serve_hub() as other:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", other.url)
        template = other.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        other.add(ID, folder)
        checkpoint = encoders.resolve(ID)
    assert encoders.resolve(ID) == checkpoint
    assert "could not be fetched" in refused("some/other")


@pytest.mark.usefixtures("ready_store")
@pytest.mark.parametrize("parts", [1, 3])
def test_a_repository_with_pickles_alone(
    hub: Hub, folder: Path, parts: int, monkeypatch: pytest.MonkeyPatch, connections: list[object]
) -> None:
    """It gives the stock pipeline's probabilities, and transformers converts nothing."""
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    models.pickle_weights(folder, parts=parts)
    put_other_formats(folder)
    hub.add(ID, folder)
    stock = pipeline("zero-shot-image-classification", model=str(folder), device="cpu")
    with LabelIndex.build(LABELS, model=ID, name="things") as index:
        requests = len(hub.requests)
        probabilities = dict(zip(index.labels, index.probabilities(picture(1))[0], strict=True))
    predictions: Any = stock(picture(1), candidate_labels=LABELS)
    expected = {prediction["label"]: prediction["score"] for prediction in predictions}
    assert probabilities == pytest.approx(expected, abs=1e-5)
    weights = {path.name for path in folder.glob("pytorch_model*.bin*") if "fp16" not in path.name}
    assert hub.fetched() == TEXT_FILES | weights
    assert len(hub.requests) == requests
    assert not [path for _, path in hub.requests if "discussions" in path or "refs" in path]
    assert not [thread for thread in threading.enumerate() if "conversion" in thread.name]
    assert connections == []


def test_pickles_replace_incomplete_safetensors(hub: Hub, folder: Path) -> None:
    index = {"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}}
    models.pickle_weights(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.add(ID, folder)
    encoders.resolve(ID)
    assert "pytorch_model.bin" in hub.fetched()


def test_formats_of_one_commit_are_kept_apart(hub: Hub, folder: Path) -> None:
    """A cache that another program filled may have the pickle alone."""
    models.write_pickles(folder, load_file(folder / "model.safetensors"))
    repository = hub.add(ID, folder)
    safetensors = encoders.resolve(ID)
    cached = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--some--clip"
    snapshot = cached / "snapshots" / repository.refs["main"]
    (snapshot / "model.safetensors").unlink()
    huggingface_hub.hf_hub_download(ID, "pytorch_model.bin")
    hub.requests.clear()
    pickled = encoders.resolve(ID)
    assert hub.requests == []
    assert pickled.revision == safetensors.revision
    assert pickled.fingerprint != safetensors.fingerprint


def test_a_repository_without_weights(hub: Hub, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    hub.add(ID, folder)
    message = refused()
    assert message.startswith(
        "no model.safetensors or pytorch_model.bin in revision main of the repository: "
    )
    assert "refs/pr/NUMBER" in message


def test_a_missing_part_is_named(hub: Hub, folder: Path) -> None:
    models.pickle_weights(folder, parts=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    hub.add(ID, folder)
    assert refused().startswith("no pytorch_model-00002-of-00002.bin in revision main")
    assert hub.fetched() <= TEXT_FILES | {"pytorch_model.bin.index.json"}


def test_a_repository_of_open_clip_is_named(hub: Hub, folder: Path) -> None:
    (folder / "config.json").rename(folder / "open_clip_config.json")
    hub.add(ID, folder)
    assert "name it hf-hub:some/clip instead" in refused()


def test_a_repository_in_open_clip_s_format(
    hub: Hub, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("open_clip")
    folder = Path(shutil.copytree(checkpoints("open_clip"), tmp_path / "folder"))
    needed = {path.name for path in folder.iterdir()}
    put_other_formats(folder)
    for name in ("model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin"):
        (folder / name).write_bytes(b"not needed")
    hub.add(ID, folder)
    encoders.load(encoders.resolve(f"hf-hub:{ID}"), device="cpu")
    assert hub.fetched() == needed
    hub.requests.clear()
    encoders.resolve(f"hf-hub:{ID}")
    assert hub.requests == []


# Revisions


def test_a_branch_that_moved_is_fetched_by_its_commit(
    hub: Hub, repository: Repository, folder: Path
) -> None:
    old = encoders.resolve(ID)
    change(folder)
    commit = repository.commit(folder)
    assert encoders.resolve(ID) == old
    new = encoders.resolve(ID, commit)
    assert new.revision == commit != old.revision
    assert new.fingerprint != old.fingerprint


@pytest.mark.parametrize("revision", ["dev", "v1.0", "refs/pr/7", "feature/x"])
def test_branches_tags_and_pull_requests(
    hub: Hub, repository: Repository, folder: Path, revision: str
) -> None:
    change(folder)
    commit = repository.commit(folder, revision)
    checkpoint = encoders.resolve(ID, revision)
    assert checkpoint.revision == commit
    requests = len(hub.requests)
    assert encoders.resolve(ID, revision) == encoders.resolve(ID, commit) == checkpoint
    assert len(hub.requests) == requests
    assert encoders.resolve(ID).revision == repository.refs["main"] != commit


# Access


def test_a_gated_repository(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub.add(ID, folder, is_gated=True)
    assert refused() == (
        f"access to it is restricted: accept its terms on {hub.url}/{ID}, then log in with "
        "`hf auth login` or set HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    hub.tokens.add("hf_me")
    message = refused()
    assert f"your account does not have it: accept its terms on {hub.url}/{ID}" in message
    repository.members.add("hf_me")
    assert encoders.resolve(ID).revision == repository.refs["main"]


def test_a_private_repository(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, folder, is_private=True, members={"hf_me"})
    hub.tokens.add("hf_me")
    assert "has no such repository, or it is private" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert encoders.resolve(ID).revision


def test_a_token_that_is_not_valid(
    hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_revoked")
    assert "refuses your token: log in again with `hf auth login`" in refused()


@pytest.mark.parametrize("token", ["", "hf_me"])
def test_no_such_repository(hub: Hub, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.tokens.add("hf_me")
    monkeypatch.setenv("HF_TOKEN", token)
    assert refused("some/thing").startswith(f"{hub.url} has no such repository, or it is private")


@pytest.mark.parametrize("revision", ["v9", "refs/pr/9", "0" * 40])
def test_no_such_revision(hub: Hub, repository: Repository, revision: str) -> None:
    assert refused(revision=revision).startswith(f"there is no revision '{revision}': take a")


# Faults


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (429, {"Retry-After": "57"}, "limits requests (429): wait 57 seconds and run the command"),
        (429, {}, "limits requests (429): wait a few minutes and run the command again, or log in"),
        (503, {}, "is out of order (503): run the command again later"),
        (403, {}, "or a proxy refuses access (403)"),
        (407, {}, "or a proxy refuses access (407)"),
    ],
)
def test_statuses(hub: Hub, status: int, headers: dict[str, str], message: str) -> None:
    hub.status, hub.headers = status, headers
    assert message in refused()


@pytest.mark.parametrize("methods", [{"GET", "HEAD"}, {"HEAD"}])
def test_a_proxy_with_a_page_of_its_own(
    hub: Hub, repository: Repository, methods: set[str]
) -> None:
    hub.html = frozenset(methods)
    assert refused().startswith(f"{hub.url} does not answer as the Hub does: check whether a proxy")


def test_a_download_that_breaks_off_is_resumed(hub: Hub, repository: Repository) -> None:
    size = len(repository.commits[repository.refs["main"]]["model.safetensors"])
    hub.breaks["model.safetensors"] = deque([size // 2])
    encoders.load(encoders.resolve(ID), device="cpu")
    assert len([path for _, path in hub.requests if "/cdn/" in path]) == 2


def test_a_download_that_breaks_off_for_good(
    hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.breaks["model.safetensors"] = deque([1000, *[0] * 6])
    message = refused()
    assert message.startswith("the connection broke off (")
    assert "run the command again; files that are complete are kept" in message
    hub.requests.clear()
    assert encoders.resolve(ID).revision == repository.refs["main"]
    assert hub.fetched() == {"model.safetensors"}


FULL_DISK = """
mount -t tmpfs -o size=200k tmpfs "$HF_HUB_CACHE" || exit 77
exec "$0" -c 'from zsic_index import encoders; encoders.resolve("some/clip")'
"""


def test_a_full_disk(hub: Hub, repository: Repository, tmp_path: Path) -> None:
    """A file system of 200 kB, mounted in a namespace of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare here")
    cache = tmp_path / "small"
    cache.mkdir()
    environment = dict(os.environ, HF_ENDPOINT=hub.url, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="0")
    completed = subprocess.run(
        [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, sys.executable],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode == 77 or "unshare" in completed.stderr:
        pytest.skip(f"no file system can be mounted here: {completed.stderr}")
    assert completed.stderr.splitlines()[-1] == (
        f"zsic_index.errors.ModelError: model {ID}: no space is left in {cache}: free some and run "
        "the command again, or set HF_HUB_CACHE to a folder on another disk"
    )


def test_a_cache_that_cannot_be_written(
    hub: Hub, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file"))
    assert "cannot be written" in refused()


# Progress


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub draw its bars, as on a terminal."""
    module = sys.modules["huggingface_hub.utils.tqdm"]
    monkeypatch.setattr(module, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(module, "progress_bar_states", {})
    monkeypatch.setenv("TQDM_POSITION", "-1")


@pytest.mark.usefixtures("ready_store", "bars")
def test_progress_on_standard_error_unless_quiet(
    hub: Hub, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    command = ["build", str(tmp_path / "labels.txt"), "--model", ID, "--name", "things", "--json"]
    loud = CliRunner().invoke(main, command)
    assert json.loads(loud.stdout)["labels"] == 2
    assert re.search(r"Fetching 5 files: 100%", loud.stderr)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "second"))
    # In tests, where bars are off from the start, transformers never restores them.
    sys.modules["huggingface_hub.utils.tqdm"].progress_bar_states.clear()
    requests = len(hub.requests)
    quiet = CliRunner().invoke(main, [*command, "--quiet"])
    assert json.loads(quiet.stdout)["labels"] == 2
    assert len(hub.requests) > requests
    assert quiet.stderr == ""


def test_a_process_of_its_own(hub: Hub, repository: Repository, tmp_path: Path) -> None:
    """Settings come from the environment, and standard output is the caller's."""
    environment = dict(os.environ, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"))
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "0"}
    code = f"from zsic_index import encoders; print(encoders.resolve({ID!r}).revision)"
    for has_bars in (True, False):
        completed = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment | {"TQDM_POSITION": "-1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert completed.stdout == f"{repository.refs['main']}\n"
        assert ("Fetching 5 files: 100%" in completed.stderr) == has_bars
    assert (tmp_path / "home" / "hub" / "models--some--clip").is_dir()
