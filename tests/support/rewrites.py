"""Functions that rewrite a checkpoint of ``models`` as other versions of transformers wrote it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from torch import Tensor

from tests.support.models import CORPUS, WORDS

Change = Callable[[Path], object]
"""A function that rewrites a checkpoint's folder."""


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the values of a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace a checkpoint's tensors by what a function makes of them."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def rename_weights(folder: Path, *pairs: tuple[str, str]) -> None:
    """Replace parts of the names of weights; each part must occur."""
    for old, new in pairs:
        assert any(old in name for name in load_file(folder / "model.safetensors")), old
        edit_weights(folder, lambda t, o=old, n=new: {k.replace(o, n): v for k, v in t.items()})


def drop_weights(folder: Path, *parts: str) -> None:
    """Remove the weights whose names contain one of the parts."""
    edit_weights(
        folder, lambda t: {k: v for k, v in t.items() if not any(part in k for part in parts)}
    )


def add_weights(folder: Path, **weights: Tensor) -> None:
    """Add tensors; their names have two underscores for each full stop."""
    edit_weights(folder, lambda t: t | {k.replace("__", "."): v for k, v in weights.items()})


def cast_weights(folder: Path, dtype: torch.dtype) -> None:
    """Store floating-point weights in another dtype."""
    edit_weights(
        folder,
        lambda t: {k: v.to(dtype) if v.is_floating_point() else v for k, v in t.items()},
    )


def config(change: Callable[[dict[str, Any]], object]) -> Change:
    """Return a change of ``config.json``."""
    return lambda folder: edit_json(folder / "config.json", change)


def keep_differences(values: dict[str, Any]) -> None:
    """Leave out what has a default, as configurations written before 2024 for SigLIP do."""
    for name in ("text_config", "vision_config"):
        part = values[name]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id", "projection_size"):
            part.pop(key, None)


def legacy_dicts(values: dict[str, Any]) -> None:
    """Repeat the sub-configurations as ``*_config_dict``, as in OpenAI's; only they are right."""
    for name in ("text_config", "vision_config"):
        values[f"{name}_dict"] = values[name] | {"projection_dim": values["projection_dim"]}
        # What wins is the dictionary: the other one has another depth.
        values[name] = values[name] | {"layer_norm_eps": 0.1}


def null_dicts(values: dict[str, Any]) -> None:
    values |= {"text_config_dict": None, "vision_config_dict": None}
    generation = {"num_beams": 1, "top_k": 50, "temperature": 1.0, "do_sample": False}
    for name in ("text_config", "vision_config"):
        values[name] |= generation | {"torch_dtype": None, "return_dict": True, "chunk_size": 0}


def projection_in_parts(values: dict[str, Any]) -> None:
    size = values.pop("projection_dim")
    for name in ("text_config", "vision_config"):
        values[name]["projection_dim"] = size


def widen_projection(folder: Path) -> None:
    """Give both projections the 512 rows that a configuration without a size means."""

    def widen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(5)
        for name in ("text_projection.weight", "visual_projection.weight"):
            columns = tensors[name].shape[1]
            tensors[name] = torch.randn(512, columns, generator=generator) * 0.25
        return tensors

    edit_weights(folder, widen)


# Tokenizers


def clip_vocabulary(folder: Path) -> None:
    """Write ``vocab.json`` and ``merges.txt`` as OpenAI's, in which ``</w>`` ends a word."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    parts = [[*word[:-1], f"{word[-1]}</w>"] for word in WORDS]
    merges = dict.fromkeys(
        ("".join(word[:end]), word[end]) for word in parts for end in range(1, len(word))
    )
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, *special.values()])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8"
    )
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    _slow_configuration(folder, "CLIPTokenizer")
    _grow_vocabulary(folder, len(vocabulary))


def _grow_vocabulary(folder: Path, size: int) -> None:
    """Give a CLIP random embeddings of so many tokens, of which the last ends a text."""
    name = "text_model.embeddings.token_embedding.weight"
    rows = torch.randn(size, 64, generator=torch.Generator().manual_seed(6))
    edit_weights(folder, lambda tensors: tensors | {name: rows})
    special = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1}
    edit_json(folder / "config.json", lambda v: v["text_config"].update(special))


def bert_vocabulary(folder: Path) -> None:
    """Write ``vocab.txt`` instead of ``tokenizer.json``."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    _slow_configuration(folder, "BertTokenizer")


def xlmr_model(folder: Path) -> None:
    """Write ``sentencepiece.bpe.model`` instead of ``tokenizer.json``; fewer tokens than before."""
    model = _train("unigram", vocab_size=150, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    _slow_configuration(folder, "XLMRobertaTokenizer")


def gemma_model(folder: Path) -> None:
    """Write ``tokenizer.model`` instead of ``tokenizer.json``; fewer tokens than before."""
    model = _train(
        *("bpe",), vocab_size=400, pad_id=0, eos_id=1, bos_id=2, unk_id=3, byte_fallback=True
    )
    (folder / "tokenizer.model").write_bytes(model)
    _slow_configuration(folder, "GemmaTokenizer")


def version_tokenizer(folder: Path) -> None:
    """Name the version of transformers that ``tokenizer.json`` is for, in its name."""
    (folder / "tokenizer.json").rename(folder / "tokenizer.4.0.json")
    files = ["tokenizer.4.0.json"]
    edit_json(folder / "tokenizer_config.json", lambda v: v.update(fast_tokenizer_files=files))


def rename(old: str, new: str) -> Change:
    """Return a change that renames a file."""
    return lambda folder: (folder / old).rename(folder / new)


def drop(*names: str) -> Change:
    """Return a change that deletes files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def _train(kind: str, **options: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=model,
        model_type=kind,
        hard_vocab_limit=False,
        pad_piece="<pad>",
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def _slow_configuration(folder: Path, name: str) -> None:
    """Delete ``tokenizer.json``, and name a class in the configuration that can do without it."""
    (folder / "tokenizer.json").unlink()

    def change(values: dict[str, Any]) -> None:
        values.pop("backend", None)
        values |= {"tokenizer_class": name, "do_lower_case": True}

    edit_json(folder / "tokenizer_config.json", change)


# Image processors


def processor(*removed: str, **values: Any) -> Change:
    """Return a change of ``preprocessor_config.json``: keys to remove, values to set."""

    def change(entries: dict[str, Any]) -> None:
        for key in removed:
            entries.pop(key, None)
        entries |= values

    return lambda folder: edit_json(folder / "preprocessor_config.json", change)


def nest_processor(folder: Path) -> None:
    """Write ``processor_config.json`` with the image processor inside, as transformers 5 does."""
    path = folder / "preprocessor_config.json"
    values = {"image_processor": json.loads(path.read_text()), "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(values))
    path.unlink()


def flat_processor(folder: Path) -> None:
    """Add a ``processor_config.json`` that has no image processor inside, as transformers 4 did."""
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))


def both_processors(folder: Path) -> None:
    """Add a nested ``processor_config.json`` that contradicts ``preprocessor_config.json``."""
    path = folder / "preprocessor_config.json"
    text = path.read_text()
    nest_processor(folder)
    path.write_text(text)
    processor(image_mean=[0.1, 0.2, 0.3])(folder)


OLD_KEYS = ("image_processor_type", "do_rescale", "rescale_factor", "do_convert_rgb")

OLD_CLIP = processor(
    *OLD_KEYS,
    feature_extractor_type="CLIPFeatureExtractor",
    size=32,
    crop_size=32,
)
"""As OpenAI's own repositories have it: sizes as numbers, a feature extractor, few keys."""


def mismatch_projection(folder: Path) -> None:
    edit_weights(folder, lambda t: t | {"text_projection.weight": torch.zeros(40, 64)})


def drop_vocabulary(folder: Path) -> None:
    """Leave of the tokenizer only the names of its special tokens."""
    drop("tokenizer.json")(folder)
    edit_json(folder / "tokenizer_config.json", lambda v: v.pop("backend"))


def name_tokenizer(name: str) -> Change:
    return lambda f: edit_json(
        f / "tokenizer_config.json", lambda v: v.update(tokenizer_class=name)
    )


def save_image_text_matcher(folder: Path) -> None:
    """Save a BLIP for another task, as most of the published ones are."""
    values = json.loads((folder / "config.json").read_text())
    parts = {name: values[name] for name in ("text_config", "vision_config")}
    model = transformers.BlipForImageTextRetrieval(transformers.BlipConfig(**parts))
    model.save_pretrained(folder)


def write_empty(path: Path) -> None:
    path.write_text("{}")
