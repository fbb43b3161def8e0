"""Checkpoints in the forms that lie on the Hub: small random ones.

Each changes one thing that years of transformers have written differently: names of weights, keys
of configurations, files of tokenizers and image processors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from tests.support.rewrites import (
    OLD_CLIP,
    OLD_KEYS,
    Change,
    add_weights,
    bert_vocabulary,
    both_processors,
    cast_weights,
    clip_vocabulary,
    config,
    drop,
    drop_vocabulary,
    drop_weights,
    edit_weights,
    flat_processor,
    gemma_model,
    keep_differences,
    legacy_dicts,
    mismatch_projection,
    name_tokenizer,
    nest_processor,
    null_dicts,
    processor,
    projection_in_parts,
    rename,
    rename_weights,
    save_image_text_matcher,
    version_tokenizer,
    widen_projection,
    write_empty,
    xlmr_model,
)


@dataclass(frozen=True)
class Variant:
    """A maker of ``models`` by name, and the changes to its folder."""

    maker: str
    changes: tuple[Change, ...]


_POSITIONS = torch.arange(77)[None]

_OLD_BERT = (
    ("LayerNorm.weight", "LayerNorm.gamma"),
    ("LayerNorm.bias", "LayerNorm.beta"),
)

_HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _variant(maker: str, *changes: Change) -> Variant:
    return Variant(maker, changes)


OPENED: dict[str, Variant] = {
    # Configurations.
    "config-dicts": _variant("clip", config(legacy_dicts)),
    "config-dicts-null": _variant("clip-legacy", config(null_dicts)),
    "config-dicts-altclip": _variant("altclip", config(null_dicts)),
    "config-dicts-chinese": _variant("chinese_clip", config(null_dicts)),
    "config-dicts-blip": _variant("blip", config(null_dicts)),
    "config-projection-missing": _variant(
        "clip", config(lambda v: v.pop("projection_dim")), widen_projection
    ),
    "config-projection-in-parts": _variant("clip", config(projection_in_parts), widen_projection),
    "config-few-keys": _variant("siglip", config(keep_differences)),
    "config-few-keys-2": _variant("siglip2", config(keep_differences)),
    # Dtypes.
    **{
        f"half-{name}-{key}-{maker}": _variant(
            maker,
            partial(cast_weights, dtype=dtype),
            config(lambda v, k=key, n=name: (v.pop("dtype"), v.update({k: n}))),
        )
        for name, dtype in _HALF.items()
        for key, maker in (("torch_dtype", "clip"), ("dtype", "siglip"))
    },
    "half-config-only": _variant("clip", config(lambda v: v.update(dtype="float16"))),
    "half-weights-only": _variant("clip", partial(cast_weights, dtype=torch.float16)),
    # Names of weights.
    "weights-position-ids": _variant(
        "clip",
        partial(
            add_weights,
            text_model__embeddings__position_ids=_POSITIONS,
            vision_model__embeddings__position_ids=torch.arange(17)[None],
        ),
    ),
    "weights-unexpected": _variant(
        "clip", partial(add_weights, classifier__weight=torch.zeros(3, 4))
    ),
    **{
        f"weights-gamma-{maker}": _variant(maker, lambda f: rename_weights(f, *_OLD_BERT))
        for maker in ("align", "altclip", "blip", "chinese_clip")
    },
    "weights-altclip-original": _variant(
        "altclip",
        lambda f: rename_weights(
            f, ("vision_model.encoder.layer.", "vision_model.encoder.layers.")
        ),
        partial(add_weights, text_model__roberta__embeddings__position_ids=_POSITIONS[:, :66]),
    ),
    "weights-no-batch-count": _variant("align", lambda f: drop_weights(f, "num_batches_tracked")),
    "weights-altclip-new": _variant(
        "altclip", lambda f: rename_weights(f, (".layer.", ".layers."))
    ),
    "weights-prefixed": _variant(
        "clip",
        partial(edit_weights, change=lambda t: {f"clip.{k}": v for k, v in t.items()}),
    ),
    # Tokenizers.
    "tokenizer-clip-slow": _variant("clip", clip_vocabulary),
    "tokenizer-clip-slow-bare": _variant(
        "clip", clip_vocabulary, drop("tokenizer_config.json", "special_tokens_map.json")
    ),
    "tokenizer-clip-versioned": _variant("clip", version_tokenizer),
    "tokenizer-unknown-class": _variant("clip", name_tokenizer("MyTokenizer")),
    "tokenizer-siglip-other-name": _variant(
        "siglip", drop("tokenizer_config.json"), rename("spiece.model", "tokenizer.model")
    ),
    "tokenizer-siglip-slow-bare": _variant("siglip", drop("tokenizer_config.json")),
    "tokenizer-siglip2-gemma": _variant("siglip2-fixed", gemma_model),
    "tokenizer-altclip-slow": _variant("altclip", xlmr_model),
    "tokenizer-metaclip-slow": _variant("metaclip_2", xlmr_model),
    "tokenizer-metaclip-slow-bare": _variant(
        "metaclip_2", xlmr_model, drop("tokenizer_config.json")
    ),
    **{
        f"tokenizer-{maker}-slow{'-bare' * bare}": _variant(
            maker, bert_vocabulary, *[drop("tokenizer_config.json")] * bare
        )
        for maker in ("align", "blip", "chinese_clip")
        for bare in (False, True)
    },
    # Image processors.
    "processor-old": _variant("clip", OLD_CLIP),
    "processor-old-chinese": _variant(
        "chinese_clip",
        processor(*OLD_KEYS, feature_extractor_type="ChineseCLIPFeatureExtractor", crop_size=32),
    ),
    "processor-old-blip": _variant("blip", processor(*OLD_KEYS, size=32)),
    "processor-untyped": _variant("clip", processor("image_processor_type")),
    "processor-untyped-align": _variant("align", processor("image_processor_type")),
    "processor-untyped-altclip": _variant("altclip", processor("image_processor_type")),
    "processor-fast": _variant("clip", processor(image_processor_type="CLIPImageProcessorFast")),
    "processor-fast-siglip2": _variant(
        "siglip2", processor(image_processor_type="Siglip2ImageProcessorFast")
    ),
    "processor-nested": _variant("clip", nest_processor),
    "processor-nested-siglip2": _variant("siglip2", nest_processor),
    "processor-flat": _variant("clip", flat_processor),
    "processor-both": _variant("clip", both_processors),
    "processor-no-crop": _variant(
        "clip", processor("crop_size", do_center_crop=False, size={"height": 32, "width": 32})
    ),
    "processor-class-only": _variant(
        "siglip", processor(*OLD_KEYS, processor_class="SiglipProcessor")
    ),
    "processor-not-square": _variant(
        "clip", processor(size={"height": 40, "width": 36}, do_convert_rgb=None)
    ),
}
"""Checkpoints that the stock pipeline opens, by name."""


REFUSED: dict[str, tuple[Variant, str]] = {
    "lacks-text": (
        _variant("clip", lambda f: drop_weights(f, "text_model.encoder.layers.0.mlp.fc1.weight")),
        r"lack 1 of the weights of CLIPModel, such as text_model\.encoder\.layers\.0\.mlp",
    ),
    "lacks-vision": (
        _variant("siglip", lambda f: drop_weights(f, "vision_model.head.probe")),
        r"lack 1 of the weights of SiglipModel, such as vision_model\.head\.probe",
    ),
    "lacks-scale": (
        _variant("clip", lambda f: drop_weights(f, "logit_scale")),
        "lack 1 of the weights of CLIPModel, such as logit_scale",
    ),
    "lacks-buffer": (
        _variant("align", lambda f: drop_weights(f, "running_mean")),
        r"lack \d of the weights of AlignModel, such as vision_model.*running_mean",
    ),
    "other-task": (
        _variant("blip", save_image_text_matcher),
        r"lack \d+ of the weights of BlipModel, such as logit_scale",
    ),
    "other-shape": (
        _variant("clip", mismatch_projection),
        r"text_projection\.weight is 40 × 64 in its files, but 48 × 64 by its config\.json",
    ),
    "other-projection": (
        _variant("clip", config(lambda v: v.pop("projection_dim"))),
        r"text_projection\.weight is 48 × 64 in its files, but 512 × 64 by its config\.json",
    ),
    "quantised": (
        _variant("clip", config(lambda v: v.update(quantization_config={"quant_method": "gptq"}))),
        "cannot be loaded from",
    ),
    "no-vocabulary-clip": (
        _variant("clip", drop_vocabulary, name_tokenizer("CLIPTokenizer")),
        r"no tokenizer files",
    ),
    "no-vocabulary-siglip": (_variant("siglip", drop("spiece.model")), "no tokenizer files"),
    "wrong-vocabulary-bert": (
        _variant(
            "blip",
            drop_vocabulary,
            name_tokenizer("BertTokenizer"),
            lambda f: write_empty(f / "vocab.json"),
        ),
        "its BertTokenizer has no vocabulary",
    ),
    "wrong-vocabulary-xlmr": (
        _variant(
            "metaclip_2",
            drop_vocabulary,
            name_tokenizer("XLMRobertaTokenizer"),
            lambda f: write_empty(f / "vocab.txt"),
        ),
        "its XLMRobertaTokenizer has no vocabulary",
    ),
    "no-merges": (
        _variant("clip", clip_vocabulary, drop("merges.txt")),
        "cannot be loaded from .*merges",
    ),
    "no-processor": (
        _variant("clip", flat_processor, drop("preprocessor_config.json")),
        "cannot be loaded from .*Can't load image processor",
    ),
    "unknown-processor": (
        _variant("clip", processor(image_processor_type="FancyImageProcessor")),
        "cannot be loaded from .*Unrecognized image processor",
    ),
}
"""Checkpoints that are refused, by name, with what the message says."""
