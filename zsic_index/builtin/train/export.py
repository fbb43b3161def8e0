"""Export of a trained model as a checkpoint folder of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import CLIPModel, PreTrainedTokenizerFast, SiglipModel

from zsic_index.builtin.train.augment import MEAN, SIDE, STD
from zsic_index.builtin.train.tokens import LENGTH, SPECIAL, Kind

_BICUBIC = 3


def export(kind: Kind, model: CLIPModel | SiglipModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the checkpoint folder; an earlier one is replaced only once the new one is complete."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.half().save_pretrained(part)
    model.float()
    # Weights are stored in half precision but should be computed with in float32: `dtype="auto"`,
    # the pipeline's default, follows the config, and half precision is slow on a CPU.
    config = _read(part / "config.json")
    for section in (config, config["text_config"], config["vision_config"]):
        section["dtype"] = "float32"
    _write(part / "config.json", config)
    _fast_tokenizer(kind, tokenizer).save_pretrained(part)
    # The name of the tokenizer class that transformers before 5 also has.
    settings = _read(part / "tokenizer_config.json") | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    settings.pop("backend", None)
    _write(part / "tokenizer_config.json", settings)
    _write(part / "preprocessor_config.json", processor_config(kind))
    for file in part.iterdir():
        file.chmod(0o644)  # safetensors writes files that only the owner may read
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def processor_config(kind: Kind) -> dict[str, Any]:
    """Return the image processor's config: CLIP crops the centre, SigLIP resizes to a square."""
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
    }
    square = {"height": SIDE, "width": SIDE}
    if kind == "clip":
        config |= {
            "crop_size": square,
            "do_center_crop": True,
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "CLIPProcessor",
            "size": {"shortest_edge": SIDE},
        }
    else:
        config |= {
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "SiglipProcessor",
            "size": square,
        }
    return config


def _fast_tokenizer(kind: Kind, tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    first, end = SPECIAL[kind]
    if kind == "clip":
        names = {"bos_token": first, "eos_token": end, "pad_token": end, "unk_token": end}
        inputs = ["input_ids", "attention_mask"]
    else:
        names = {"eos_token": end, "pad_token": first, "unk_token": end}
        # SigLIP attends to padding, so there is no mask to return.
        inputs = ["input_ids"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LENGTH,
        model_input_names=inputs,
        padding_side="right",
        **names,
    )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
