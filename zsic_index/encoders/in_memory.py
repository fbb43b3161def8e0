"""Models that somebody else has loaded: their encoder, and what their label embeddings depend on.

Their name says little: they may have been trained further, cast or patched since they were read
from disk. So it is the tensors and the tokenizer themselves that are hashed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from zsic_index.encoders.from_transformers import TransformersEncoder
from zsic_index.encoders.transformers_files import encoder_fingerprint, family_of
from zsic_index.records import Dtype

_TRANSIENT = frozenset(
    # The first two follow the last call of a fast tokenizer, the others say where it came from.
    {"truncation", "padding", "name_or_path", "_name_or_path", "transformers_version"}
)

State = tuple[tuple[int, ...], ...]
"""Changes when a tensor or the tokenizer is replaced or written to; for this process alone."""

_SAMPLED = 4_096
"""Numbers of a tensor that are looked at for its state."""


def encoder_of(model: Any, tokenizer: Any, image_processor: Any) -> TransformersEncoder:
    """Return the encoder that a loaded model is, where it is and in its dtype.

    Raises:
        ModelError: when its family is not supported.
    """
    family = family_of(model.config.model_type, str(model.name_or_path))
    return TransformersEncoder(model, tokenizer, image_processor, family)


def dtype_of(model: Any) -> Dtype:
    """Return what a loaded model's towers compute in."""
    name: Any = str(model.dtype).removeprefix("torch.")
    return name  # type: ignore[no-any-return]


def state_of(model: Any, tokenizer: Any) -> State:
    """Return what tells, at next to no cost, whether a text tower is as it was before.

    torch counts what is written to a tensor, but not what is written through its ``data``, as when
    adapters are merged; a sample of each tensor shows that, unless it was a few numbers only.
    """
    tensors = [tensor for _, tensor in _text_tensors(model)]
    samples = torch.stack([_sample(tensor) for tensor in tensors]).tolist()
    return (
        (id(tokenizer), len(tokenizer)),
        *(
            (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, sample)
            for tensor, sample in zip(tensors, samples, strict=True)
        ),
    )


def fingerprint_of(model: Any, tokenizer: Any) -> str:
    """Return the encoder fingerprint of a loaded model: every text weight goes into it."""
    digest = hashlib.sha256()
    for name, tensor in _text_tensors(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    identity = [
        "in memory",
        digest.hexdigest(),
        _stable(model.config.to_dict()),
        *_tokenizer_files(tokenizer),
    ]
    return encoder_fingerprint(dtype_of(model), identity)


def _text_tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    """All but the vision tower's own, in a stable order."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sorted((name, t) for name, t in tensors.items() if not name.startswith("vision"))


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    chosen = flat[:: max(1, flat.numel() // _SAMPLED)].contiguous()
    return chosen.view(torch.uint8).sum(dtype=torch.int64)


def _bytes(tensor: torch.Tensor) -> Any:
    # NumPy knows no bfloat16, but it knows bytes.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


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
