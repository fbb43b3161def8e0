"""Loaded models: what their label embeddings depend on, as they are in memory.

Their name says little: they may have been trained further, cast, patched or given adapters since
they were read from disk. So it is what the text tower consists of that is hashed: every tensor, and
of every module its class and its plain attributes, such as an adapter's scaling. Where that does
not say what the tower computes, nothing of it may be kept. Hooks and replaced methods cannot be
seen through: they are taken to watch, not to change what is computed.
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
    # The first two follow the last call of a fast tokenizer, the others say where it came from.
    {"truncation", "padding", "name_or_path", "_name_or_path", "transformers_version"}
)

_OPAQUE_ROOMS = ("torch.ao.", "torch.jit.")
"""Where modules come from whose weights are not in their tensors."""

_MACHINERY = frozenset(
    (
        *("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"),
        *("config", "generation_config", "name_or_path", "warnings_issued", "training"),
        *("_is_hf_initialized", "_hf_hook", "_old_forward"),
    )
)
"""Attributes of modules that are looked at elsewhere, or say nothing of what is computed."""

_SAMPLED = 4_096
"""Numbers of a tensor that are looked at for its state; at least one of each of its rows."""

State = tuple[Any, ...]
"""Changes when a text tower or its tokenizer does; for this process alone."""


def dtype_of(model: Any) -> Dtype:
    """Return what a loaded model's towers compute in.

    Raises:
        ModelError: when it is none of those that are supported.
    """
    match str(model.dtype).removeprefix("torch."):
        case "float32" | "bfloat16" | "float16" as dtype:
            return dtype
        case other:
            raise ModelError(
                f"the model's dtype is {other}: use float32, bfloat16 or float16, for example "
                "pipeline(..., dtype='float32')"
            )


def why_not_to_keep(model: Any) -> str | None:
    """Return why a text tower's results depend on more than can be seen, or None."""
    for name, module in _text_modules(model):
        if module.training:
            return "the model is in training mode, in which results are not the same twice"
        if type(module).__module__.startswith(_OPAQUE_ROOMS):
            return f"the weights of its module {name}, a {type(module).__qualname__}, are hidden"
    return None


def state_of(model: Any, tokenizer: Any) -> State:
    """Return what tells, in milliseconds, whether a text tower is as it was before.

    torch counts what is written to a tensor, but not what is written through its ``data``, as when
    adapters are merged; a sample of each tensor shows that, unless it was a few numbers only.
    """
    tensors = [tensor for _, tensor in _text_tensors(model)]
    samples = torch.cat([_sample(tensor) for tensor in tensors]).cpu().numpy().tobytes()
    return (
        _tokenizer_state(tokenizer),
        tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors),
        samples,
        _structure(model),
    )


def fingerprint_of(model: Any, tokenizer: Any) -> str:
    """Return the encoder fingerprint of a loaded model: every text weight goes into it."""
    digest = hashlib.sha256()
    for name, tensor in _text_tensors(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    identity = [
        "loaded",
        digest.hexdigest(),
        hashlib.sha256("\n".join(_structure(model)).encode()).hexdigest(),
        _stable(model.config.to_dict()),
        *_tokenizer_files(tokenizer),
    ]
    return encoder_fingerprint(dtype_of(model), identity)


def _text_tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    """All but the vision tower's own, in a stable order."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sorted((name, t) for name, t in tensors.items() if not name.startswith("vision"))


def _text_modules(model: Any) -> Iterator[tuple[str, Module]]:
    """All but the vision tower's own."""
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
        if key not in _MACHINERY and "hook" not in key and not _is_method(module, key)
    }


def _is_method(module: Module, key: str) -> bool:
    return callable(getattr(type(module), key, None))


def _plain(value: Any) -> str:
    """Write a value down as far as it is plain: numbers, texts, collections, names of functions."""
    match value:
        case None | bool() | int() | float() | str() | torch.dtype():
            return repr(value)
        case dict():
            return f"{{{', '.join(f'{key}: {_plain(one)}' for key, one in value.items())}}}"
        case list() | tuple() | set() | frozenset():
            parts = [_plain(one) for one in value]
            return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
        case _:
            return str(getattr(value, "__qualname__", type(value).__qualname__))


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    width = tensor.shape[-1] if tensor.ndim > 1 else flat.numel()
    step = max(1, min(flat.numel() // _SAMPLED, width))
    return flat[::step].contiguous().view(torch.uint8)


def _bytes(tensor: torch.Tensor) -> Any:
    # NumPy knows no bfloat16, but it knows bytes.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _tokenizer_state(tokenizer: Any) -> State:
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
    """Names and contents of what the tokenizer would be saved as, the transient left out."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        parts = []
        for path in sorted(Path(folder).iterdir()):
            content = path.read_bytes()
            if path.suffix == ".json":
                content = _stable(json.loads(content)).encode()
            parts += [path.name, hashlib.sha256(content).hexdigest()]
    return parts


def _stable(values: dict[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if key not in _TRANSIENT}
    return json.dumps(kept, sort_keys=True, default=str)
