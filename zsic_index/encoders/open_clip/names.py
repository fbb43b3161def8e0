"""Look up open_clip's architectures and pretrained tags."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import open_clip

from zsic_index.errors import ModelError


def read_configuration(architecture: str) -> str:
    """Return an architecture's configuration as JSON.

    Raises:
        ModelError: when open_clip has none of that name.
    """
    configuration = open_clip.get_model_config(architecture)
    if configuration is None:
        raise ModelError(
            f"open_clip has no architecture {architecture!r}; it has, for example, "
            f"{', '.join(open_clip.list_models()[:5])}: see open_clip.list_models()"
        )
    return json.dumps(configuration, sort_keys=True)


def find_tokenizer(architecture: str) -> str | None:
    """Return the Hub repository of an architecture's tokenizer; None for open_clip's own."""
    text = json.loads(read_configuration(architecture))["text_cfg"]
    name = text.get("hf_tokenizer_name")
    return str(name) if name else None


def find_repository(architecture: str, tag: str) -> tuple[str, tuple[str, ...]]:
    """Return the Hub repository of a pretrained tag, and the names of its weights by preference.

    Raises:
        ModelError: for an unknown tag, or one whose weights are not on the Hub.
    """
    read_configuration(architecture)
    source = open_clip.get_pretrained_cfg(architecture, tag)
    if not source:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ModelError(f"open_clip's {architecture} has no tag {tag!r}; it has: {tags}")
    quick = json.loads(read_configuration(architecture)).get("quick_gelu", False)
    if bool(source.get("quick_gelu", False)) != quick:
        fitting = architecture.removesuffix("-quickgelu") if quick else f"{architecture}-quickgelu"
        raise ModelError(
            f"open_clip's {architecture}/{tag}: the weights were trained "
            f"{'without' if quick else 'with'} QuickGELU, so this architecture gives wrong "
            f"numbers: use open_clip:{fitting}/{tag}"
        )
    path = PurePosixPath(source.get("hf_hub", ""))
    if len(path.parts) < 2:
        raise ModelError(
            f"open_clip's {architecture}/{tag} is not on the Hub: take another tag, or fetch its "
            f"weights and name the file: open_clip:{architecture}/weights.pt"
        )
    file = "/".join(path.parts[2:]) or "open_clip_pytorch_model.bin"
    names = ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"]
    names += [str(PurePosixPath(file).with_suffix(".safetensors")), file]
    return "/".join(path.parts[:2]), tuple(dict.fromkeys(names))
