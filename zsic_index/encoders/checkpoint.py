"""Finding a checkpoint's files, and the fingerprint of what label embeddings depend on.

Nothing here imports torch or transformers: a build with nothing new stops after this.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from zsic_index import builtin
from zsic_index.encoders.families import FAMILIES, Family
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

RECIPE = "two-towers/1"
"""Names how this program turns prompts into embeddings; a change of that is a new name.

Prompts are tokenised with special tokens, cut to the tower's length, padded as the family says; the
tower's projected output is normalised in float32.
"""

_WEIGHTS = "*.safetensors"
_TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_HUB_FILES = ["*.json", "*.txt", "*.model", _WEIGHTS]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are on this machine.

    Attributes:
        model_id: as the user gave it: ``builtin:clip``, a folder, or a Hub id.
        revision: the pinned Hub commit; None for folders.
        folder: where the files are.
        family: how to treat it.
        dtype: what its towers compute in.
        fingerprint: sha256, hexadecimal, of all that a prompt's embedding depends on: weights,
            configuration and tokenizer files (or the Hub commit, which fixes them), the major
            version of transformers that reads them, the towers' dtype, and RECIPE.
    """

    model_id: str
    revision: str | None
    folder: Path
    family: Family
    dtype: Dtype
    fingerprint: str


def resolve(model: str | Path, revision: str | None = None, dtype: Dtype = "float32") -> Checkpoint:
    """Find a checkpoint.

    Args:
        model: ``builtin:clip``, ``builtin:siglip``, a folder in transformers' format, or a Hub id
            such as ``openai/clip-vit-base-patch32``.
        revision: branch, tag or commit of a Hub id.
        dtype: what its towers shall compute in.

    Raises:
        ModelError: when it is not to be had, or of a family that is not supported.
    """
    model = str(model)
    if dtype not in get_args(Dtype):
        raise ModelError(f"dtype {dtype!r}: use {', '.join(get_args(Dtype))}")
    if model.startswith("builtin:"):
        _refuse_revision(model, revision)
        try:
            return _local(model, builtin.model_path(model), dtype)
        except ValueError as error:
            raise ModelError(str(error)) from None
    folder = Path(model).expanduser()
    if folder.is_dir():
        _refuse_revision(model, revision)
        return _local(str(folder.absolute()), folder, dtype)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ModelError(f"model {model}: there is no such folder")
    folder, commit = _from_hub(model, revision)
    return _checkpoint(model, commit, folder, dtype, ["hub", model, commit])


def _local(model_id: str, folder: Path, dtype: Dtype) -> Checkpoint:
    weights = sorted(folder.glob(_WEIGHTS))
    if not weights:
        raise ModelError(
            f"model {model_id}: no {_WEIGHTS} file in {folder}: "
            "convert the checkpoint with save_pretrained(..., safe_serialization=True)"
        )
    texts = [folder / name for name in _TEXT_FILES if (folder / name).is_file()]
    identity = [
        "files",
        *(part for path in [*weights, *texts] for part in (path.name, _hash(path))),
    ]
    return _checkpoint(model_id, None, folder, dtype, identity)


def _checkpoint(
    model_id: str, revision: str | None, folder: Path, dtype: Dtype, identity: list[str]
) -> Checkpoint:
    family = _family(model_id, folder)
    return Checkpoint(
        model_id, revision, folder, family, dtype, encoder_fingerprint(dtype, identity)
    )


def encoder_fingerprint(dtype: Dtype, identity: list[str]) -> str:
    """Return the sha256, hexadecimal, of all that a prompt's embedding depends on.

    Args:
        dtype: what the towers compute in.
        identity: what names the weights, the configuration and the tokenizer.
    """
    transformers_major = importlib.metadata.version("transformers").split(".")[0]
    parts = [RECIPE, dtype, f"transformers {transformers_major}", *identity]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _family(model_id: str, folder: Path) -> Family:
    path = folder / "config.json"
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"model {model_id}: {path} cannot be read: {error}") from error
    return family_of(model_type, model_id)


def family_of(model_type: str, model_id: str) -> Family:
    """Return how to treat a ``model_type``.

    Raises:
        ModelError: when it is not supported; the message names ``model_id`` and those that are.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"model {model_id}: its model_type {model_type!r} is not supported; "
            f"supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(
            f"model {model}: revision {revision!r} given, but only Hub models have revisions"
        )


def _from_hub(model: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder of a Hub snapshot and its commit; only what is missing is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError as HubError
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=_HUB_FILES))
    except HFValidationError:
        raise ModelError(
            f"model {model!r} is neither a folder, a Hub id such as "
            f"openai/clip-vit-base-patch32, nor one of {', '.join(builtin.MODELS)}"
        ) from None
    except (LocalEntryNotFoundError, HubError, OSError) as error:
        raise ModelError(
            f"model {model}: its files (config.json, tokenizer, {_WEIGHTS}) are not in the Hub's "
            f"cache on this machine and could not be fetched ({_first_line(error)}): check the "
            f"name and the network, or use a local folder or one of {', '.join(builtin.MODELS)}"
        ) from error
    if not any(folder.glob(_WEIGHTS)):
        raise ModelError(f"model {model}: it has no {_WEIGHTS} file; other weights are not loaded")
    return folder, folder.name


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
