"""Configurations of open_clip with towers of every kind, as small as they can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from tests.support import models

_VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 16}
_TEXT = {"width": 64, "heads": 4, "layers": 2, "context_length": 77, "vocab_size": 49_408}
_DECODER = {"context_length": 76, "vocab_size": 49_408, "width": 64, "heads": 4, "layers": 1}
_HIDDEN = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def _timm(name: str, size: int, **options: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": size, "timm_model_pretrained": False} | options


def _coca(**towers: Any) -> dict[str, Any]:
    return {"custom_text": True, "multimodal_cfg": _DECODER | {"attn_pooler_heads": 4}} | towers


def _hugging_face(name: str, **options: Any) -> dict[str, Any]:
    repository = f"towers/{name}"
    return {"hf_model_name": repository, "hf_tokenizer_name": repository} | options


TOWERS: dict[str, dict[str, Any]] = {
    "vit": {},
    "quickgelu": {"quick_gelu": True},
    "clipa": {
        "vision_cfg": _VISION | {"no_ln_pre": True, "pool_type": "avg"},
        "text_cfg": _TEXT | {"context_length": 32, "pool_type": "last", "no_causal_mask": True},
    },
    "attentional-pool": {
        "vision_cfg": _VISION
        | {"attentional_pool": True, "attn_pooler_queries": 8, "attn_pooler_heads": 4}
    },
    "resnet": {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    },
    "class-token": {"custom_text": True, "text_cfg": _TEXT | {"embed_cls": True}},
    "first-token": {
        "custom_text": True,
        "text_cfg": _TEXT | {"pool_type": "first", "no_causal_mask": True, "proj_bias": True},
    },
    "end-token": {
        "text_cfg": _TEXT
        | {"hf_tokenizer_name": "towers/xlm-roberta", "vocab_size": 170}
        | {"pool_type": "eos", "eos_id": 2}
    },
    "coca": _coca(
        vision_cfg=_VISION
        | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        text_cfg=_TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
    ),
    "coca-without-pooler": _coca(
        vision_cfg=_VISION | {"output_tokens": True},
        text_cfg=_TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
    ),
    "coca-roberta": _coca(
        vision_cfg=_VISION | {"output_tokens": True},
        text_cfg=_hugging_face("xlm-roberta", hf_proj_type="linear", output_tokens=True),
    ),
    "xlm-roberta": {"text_cfg": _hugging_face("xlm-roberta", hf_pooler_type="mean_pooler")},
    "bert": {"text_cfg": _hugging_face("bert", hf_pooler_type="cls_pooler", hf_proj_type="mlp")},
    "mt5": {"text_cfg": _hugging_face("mt5", hf_pooler_type="mean_pooler", hf_proj_type="mlp")},
    "nllb": {"text_cfg": _hugging_face("nllb", hf_pooler_type="cls_pooler", hf_proj_type="linear")},
    "timm-vit": {"custom_text": True, "vision_cfg": _timm("test_vit", 160, timm_proj="linear")},
    "timm-sigmoid": {
        "init_logit_bias": -3,
        "custom_text": True,
        "embed_dim": 64,
        "vision_cfg": _timm("test_vit", 160, timm_pool="token", timm_proj="none"),
        "text_cfg": _TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "timm-convnext": {
        "vision_cfg": _timm("test_convnext", 64, timm_proj="linear", timm_drop_path=0.1)
    },
    "timm-efficientnet": {
        "vision_cfg": _timm("test_efficientnet", 64, timm_pool="avg", timm_proj="linear")
    },
    "timm-eva02": {
        "custom_text": True,
        "embed_dim": 192,
        "vision_cfg": _timm("eva02_tiny_patch14_224", 224, timm_pool="token", timm_proj=None),
    },
}
"""Keys of each configuration that are not the defaults of ``complete``."""


def complete(tower: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with both towers."""
    return {"embed_dim": 48, "vision_cfg": _VISION, "text_cfg": _TEXT} | tower


def _unigram_towers(folder: Path, config: Callable[[int], Any]) -> None:
    tokenizer = models.unigram_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], 77)
    tokenizer.save_pretrained(folder)
    config(len(tokenizer)).save_pretrained(folder)


def _bert(folder: Path) -> None:
    tokenizer = models.bert_tokenizer(["input_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    sizes = _HIDDEN | {"intermediate_size": 128, "max_position_embeddings": 90}
    transformers.BertConfig(vocab_size=len(tokenizer), **sizes).save_pretrained(folder)


def _xlm_roberta(folder: Path) -> None:
    sizes = _HIDDEN | {"intermediate_size": 128, "max_position_embeddings": 90}
    _unigram_towers(
        folder, lambda n: transformers.XLMRobertaConfig(vocab_size=n, pad_token_id=1, **sizes)
    )


def _mt5(folder: Path) -> None:
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    _unigram_towers(folder, lambda n: transformers.MT5Config(vocab_size=n, pad_token_id=1, **sizes))


def _nllb(folder: Path) -> None:
    sizes = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 128))
    }
    _unigram_towers(
        folder,
        lambda n: transformers.M2M100Config(
            vocab_size=n, d_model=64, max_position_embeddings=90, pad_token_id=1, **sizes
        ),
    )


TEXT_MODELS: dict[str, Callable[[Path], None]] = {
    "towers/bert": _bert,
    "towers/mt5": _mt5,
    "towers/nllb": _nllb,
    "towers/xlm-roberta": _xlm_roberta,
}
"""Functions that write configuration and tokenizer of a text tower of transformers."""
