"""Fingerprints of models in memory.

The name of such a model is not enough: it may have been trained further, cast, patched or given
adapters since it was read from disk. So the fingerprint hashes the text tower itself: every tensor,
and of every module its class and its plain attributes, such as an adapter's scaling. If these do
not determine the output of the tower, its embeddings must not be stored. Hooks and replaced methods
cannot be inspected; they are assumed not to change the output.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from zsic_index.encoders.transformers.files import encoder_fingerprint
from zsic_index.errors import ModelError
from zsic_index.records import Dtype

_TRANSIENT = frozenset(
    # The first two depend on the last call of a fast tokenizer, the others on its origin.
    {"truncation", "padding", "name_or_path", "_name_or_path", "transformers_version"}
)

_OPAQUE_PACKAGES = ("torch.ao.", "torch.jit.")
"""Packages of modules whose weights are not in their tensors."""

_IGNORED_ATTRIBUTES = frozenset(
    (
        *("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"),
        *("config", "generation_config", "name_or_path", "warnings_issued", "training"),
        *("_is_hf_initialized", "_hf_hook", "_old_forward"),
    )
)
"""Attributes of modules that are hashed elsewhere, or do not influence the output."""

_SAMPLE_SIZE = 4_096
"""Numbers of a tensor that are compared for its state; at least one of each of its rows."""

TextTowerState = tuple[Any, ...]
"""Value that differs after a change of a text tower or its tokenizer, within one process."""


def read_dtype(model: Any) -> Dtype:
    """Return the dtype that a model's towers compute in.

    Raises:
        ModelError: when it is not supported.
    """
    match str(model.dtype).removeprefix("torch."):
        case "float32" | "bfloat16" | "float16" as dtype:
            return dtype
        case other:
            raise ModelError(
                f"the model's dtype is {other}: use float32, bfloat16 or float16, for example "
                "pipeline(..., dtype='float32')"
            )


def reason_not_to_store(model: Any) -> str | None:
    """Return why the fingerprint does not determine a text tower's output; None if it does."""
    for name, module in _text_modules(model):
        if module.training:
            return "the model is in training mode, in which results are not the same twice"
        if type(module).__module__.startswith(_OPAQUE_PACKAGES):
            return f"the weights of its module {name}, a {type(module).__qualname__}, are hidden"
    return None


def read_state(model: Any, tokenizer: Any) -> TextTowerState:
    """Return the state of a text tower and its tokenizer, in milliseconds.

    torch counts writes to a tensor, but not writes through its ``data``, as when adapters are
    merged; a sample of each tensor shows these, unless they change only a few numbers.
    """
    tensors = [tensor for _, tensor in _text_tensors(model)]
    samples = torch.cat([_sample(tensor) for tensor in tensors]).cpu().numpy().tobytes()
    return (
        _tokenizer_state(tokenizer),
        tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors),
        samples,
        _structure(model),
    )


def compute_fingerprint(model: Any, tokenizer: Any) -> str:
    """Return the encoder fingerprint of a model in memory, over all weights of its text tower."""
    digest = hashlib.sha256()
    for name, tensor in _text_tensors(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    identity = [
        "loaded",
        digest.hexdigest(),
        hashlib.sha256("\n".join(_structure(model)).encode()).hexdigest(),
        _stable_json(model.config.to_dict()),
        *_tokenizer_files(tokenizer),
    ]
    return encoder_fingerprint(read_dtype(model), identity)


def _text_tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Return all tensors except those of the vision tower, sorted by name."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sorted((name, t) for name, t in tensors.items() if not name.startswith("vision"))


def _text_modules(model: Any) -> Iterator[tuple[str, Module]]:
    """Yield all modules except those of the vision tower."""
    return ((name, m) for name, m in model.named_modules() if not name.startswith("vision"))


def _structure(model: Any) -> tuple[str, ...]:
    """Return a line for each module of the text tower: its class and its plain attributes."""
    return tuple(
        f"{name} {type(module).__module__}.{type(module).__qualname__} "
        f"{_plain(_attributes(module))}"
        for name, module in _text_modules(model)
    )


def _attributes(module: Module) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(module).items()
        if key not in _IGNORED_ATTRIBUTES and "hook" not in key and not _is_method(module, key)
    }


def _is_method(module: Module, key: str) -> bool:
    return callable(getattr(type(module), key, None))


def _plain(value: Any) -> str:
    """Return the text of a plain value: numbers, strings, collections; names of anything else."""
    match value:
        case None | bool() | int() | float() | str() | torch.dtype():
            return repr(value)
        case dict():
            return f"{{{', '.join(f'{key}: {_plain(entry)}' for key, entry in value.items())}}}"
        case list() | tuple() | set() | frozenset():
            parts = [_plain(entry) for entry in value]
            return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
        case _:
            return str(getattr(value, "__qualname__", type(value).__qualname__))


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    width = tensor.shape[-1] if tensor.ndim > 1 else flat.numel()
    step = max(1, min(flat.numel() // _SAMPLE_SIZE, width))
    return flat[::step].contiguous().view(torch.uint8)


def _bytes(tensor: torch.Tensor) -> Any:
    # NumPy has no bfloat16, but it has bytes.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _tokenizer_state(tokenizer: Any) -> TextTowerState:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = ("normalizer", "pre_tokenizer", "post_processor")
    steps = [getattr(backend, part, None) for part in parts]
    return (
        id(tokenizer),
        len(tokenizer),
        id(backend),
        tuple(step.__getstate__() for step in steps if step is not None),
        (tokenizer.model_max_length, tokenizer.padding_side, tokenizer.truncation_side),
        tuple(tokenizer.all_special_ids),
    )


def _tokenizer_files(tokenizer: Any) -> list[str]:
    """Return names and hashes of the files that the tokenizer would be saved as."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        parts = []
        for path in sorted(Path(folder).iterdir()):
            content = path.read_bytes()
            if path.suffix == ".json":
                content = _stable_json(json.loads(content)).encode()
            parts += [path.name, hashlib.sha256(content).hexdigest()]
    return parts


def _stable_json(values: dict[str, Any]) -> str:
    """Return JSON with sorted keys, without the transient ones."""
    kept = {key: value for key, value in values.items() if key not in _TRANSIENT}
    return json.dumps(kept, sort_keys=True, default=str)
