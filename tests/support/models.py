"""Small random checkpoints of every family, made on the spot, whose probabilities spread.

Real transformers classes, real tokenizers that know a few words, real safetensors files: all but
the learning. Tokenizers are written down, not trained: trainers settle ties by chance. The weights
are scaled up so that images and prompts differ enough for the largest probability to stand out;
tests assert that it does.
"""

from __future__ import annotations

import io
import json
import math
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "This is a photo of a cat, a dog, a red house and the blue sea.",
    "a bright picture of one small bird in an old tree, and a train",
    "apple banana cherry date elderberry fig grape lemon mango orange pear plum",
    "zero one two three four five six seven eight nine ten label number",
    "0 1 2 3 4 5 6 7 8 9 10 11 12 13 21 34 55 89 144",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
]

TOWER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION = TOWER | {"image_size": 32, "patch_size": 8}


def make_clip(
    folder: Path, *, seed: int = 0, logit_scale: float = 4.6, legacy_eos: bool = False
) -> Path:
    """Write a random CLIP; with ``legacy_eos`` one whose config says 2, as OpenAI's do."""
    tokenizer = _clip_tokenizer()
    tokenizer.save_pretrained(folder)
    text = _special(tokenizer) | {"max_position_embeddings": 77}
    if legacy_eos:
        # transformers then reads the text at the highest token id, as OpenAI's code does.
        text["eos_token_id"] = 2
    config = transformers.CLIPConfig(
        text_config=TOWER | text,
        vision_config=VISION,
        projection_dim=48,
        logit_scale_init_value=logit_scale,
    )
    _save(transformers.CLIPModel, config, seed, folder)
    return _clip_images(folder)


def make_legacy_clip(folder: Path) -> Path:
    return make_clip(folder, legacy_eos=True)


def make_metaclip_2(folder: Path) -> Path:
    tokenizer = unigram_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], 77)
    tokenizer.save_pretrained(folder)
    config = transformers.MetaClip2Config(
        text_config=TOWER | _special(tokenizer) | {"max_position_embeddings": 77},
        vision_config=VISION,
        projection_dim=48,
        logit_scale_init_value=4.6,
    )
    _save(transformers.MetaClip2Model, config, 0, folder)
    return _clip_images(folder)


def make_altclip(folder: Path) -> Path:
    """RoBERTa numbers positions from the padding id on: 66 of them hold 64 tokens."""
    tokenizer = unigram_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], 10**30)
    tokenizer.save_pretrained(folder)
    config = transformers.AltCLIPConfig(
        text_config=TOWER
        | _special(tokenizer)
        | {"max_position_embeddings": 66, "project_dim": 64, "type_vocab_size": 1},
        vision_config=VISION,
        projection_dim=48,
        logit_scale_init_value=4.6,
    )
    _save(transformers.AltCLIPModel, config, 0, folder)
    return _clip_images(folder)


def make_chinese_clip(folder: Path) -> Path:
    tokenizer = bert_tokenizer(["input_ids", "token_type_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    config = transformers.ChineseCLIPConfig(
        text_config=TOWER | _special(tokenizer) | {"max_position_embeddings": 64},
        vision_config=VISION,
        projection_dim=48,
        logit_scale_init_value=4.6,
    )
    _save(transformers.ChineseCLIPModel, config, 0, folder)
    transformers.ChineseCLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False
    ).save_pretrained(folder)
    return folder


def make_blip(folder: Path) -> Path:
    tokenizer = bert_tokenizer(["input_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    config = transformers.BlipConfig(
        text_config=TOWER
        | _special(tokenizer)
        | {"max_position_embeddings": 64, "encoder_hidden_size": 64},
        vision_config=VISION,
        projection_dim=48,
        logit_scale_init_value=4.6,
    )
    _save(transformers.BlipModel, config, 0, folder)
    transformers.BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def make_align(folder: Path) -> Path:
    tokenizer = bert_tokenizer(["input_ids", "token_type_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    config = transformers.AlignConfig(
        text_config=TOWER | _special(tokenizer) | {"max_position_embeddings": 64},
        vision_config={
            "image_size": 32,
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "kernel_sizes": [3, 3],
            "in_channels": [32, 16],
            "out_channels": [16, 64],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 4],
        },
        projection_dim=64,
        temperature_init_value=0.03,
    )
    _save(transformers.AlignModel, config, 0, folder)
    transformers.EfficientNetImageProcessor(
        size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}, do_center_crop=True
    ).save_pretrained(folder)
    return folder


def make_siglip(folder: Path, *, seed: int = 0) -> Path:
    """Write a random SigLIP with the tokenizer class of the published ones."""
    _sentencepiece_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.SiglipConfig(text_config=_siglip_text(tokenizer), vision_config=VISION)
    _save(transformers.SiglipModel, config, seed, folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def make_siglip2(folder: Path) -> Path:
    """Write a random NaFlex SigLIP 2: as many patches as the image's shape asks for."""
    tokenizer = unigram_tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"], 64, lower=True, bos=False)
    tokenizer.save_pretrained(folder)
    config = transformers.Siglip2Config(
        text_config=_siglip_text(tokenizer),
        vision_config=TOWER | {"patch_size": 8, "num_patches": 16},
    )
    _save(transformers.Siglip2Model, config, 0, folder)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=24).save_pretrained(folder)
    return folder


def make_siglip2_fixed(folder: Path) -> Path:
    """Write a random fixed-size SigLIP 2: SigLIP's architecture, SigLIP 2's tokenizer."""
    tokenizer = _gemma_tokenizer()
    tokenizer.save_pretrained(folder)
    config = transformers.SiglipConfig(text_config=_siglip_text(tokenizer), vision_config=VISION)
    _save(transformers.SiglipModel, config, 0, folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "align": make_align,
    "altclip": make_altclip,
    "blip": make_blip,
    "chinese_clip": make_chinese_clip,
    "clip": make_clip,
    "clip-legacy": make_legacy_clip,
    "metaclip_2": make_metaclip_2,
    "siglip": make_siglip,
    "siglip2": make_siglip2,
    "siglip2-fixed": make_siglip2_fixed,
}
"""Every family, and the variants of one that are read in another way."""


def make_open_clip(folder: Path) -> Path:
    """Write a random CLIP of open_clip, with its own tokenizer."""
    config = {
        "embed_dim": 48,
        "vision_cfg": _OPEN_CLIP_VISION,
        "text_cfg": _OPEN_CLIP_TEXT | {"context_length": 77, "vocab_size": 49_408},
    }
    return _save_open_clip(config, folder)


def make_open_clip_siglip(folder: Path) -> Path:
    """Write a random SigLIP of open_clip, with a tokenizer of transformers in the folder."""
    tokenizer = unigram_tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"], 64, lower=True, bos=False)
    tokenizer.save_pretrained(folder)
    config = {
        "embed_dim": 48,
        "init_logit_bias": -3,
        "custom_text": True,
        "vision_cfg": _OPEN_CLIP_VISION,
        "text_cfg": _OPEN_CLIP_TEXT
        | {"context_length": 64, "vocab_size": len(tokenizer), "hf_tokenizer_name": "some/where"}
        | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
        | {"tokenizer_kwargs": {"clean": "canonicalize"}},
    }
    return _save_open_clip(config, folder)


_OPEN_CLIP_VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 16}
_OPEN_CLIP_TEXT = {"width": 64, "heads": 4, "layers": 2}

OPEN_CLIP_MAKERS: dict[str, Callable[[Path], Path]] = {
    "open_clip": make_open_clip,
    "open_clip-siglip": make_open_clip_siglip,
}
"""Checkpoints of open_clip, which has to be installed."""


def _save_open_clip(config: dict[str, Any], folder: Path) -> Path:
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    )
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    spread(model)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


# Tokenizers


WORDS = list(dict.fromkeys(re.findall(r"\w+", " ".join(CORPUS).lower())))


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that put words together letter by letter."""
    steps = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    return list(dict.fromkeys(steps))


def _clip_tokenizer() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges([f"Ġ{word}" for word in WORDS])
    # The end token has the highest id, as in the published ones.
    tokens = [*letters, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    _surround(tokenizer, "<|startoftext|>", "<|endoftext|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=77,
    )


def unigram_tokenizer(
    special: list[str], length: int, *, lower: bool = False, bos: bool = True
) -> Any:
    """A tokenizer in the manner of XLM-R or Gemma; ``special`` in the order of their ids."""
    pieces = [(f"▁{word}", -4.0) for word in WORDS]
    pieces += [(letter, -9.0) for letter in "▁" + string.ascii_letters + string.digits + ".,!;()%"]
    tokenizer = Tokenizer(
        Unigram([*((token, 0.0) for token in special), *pieces], special.index("<unk>"))
    )
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lower else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    start = next(token for token in special if token in ("<s>", "<bos>"))
    end = next(token for token in special if token in ("</s>", "<eos>"))
    _surround(tokenizer, start if bos else None, end)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"] if bos else ["input_ids"],
    )


def _gemma_tokenizer() -> Any:
    """A tokenizer of the published class, which lower-cases and pads on the left by default."""
    merges = _merges([f"{word}▁" for word in WORDS])
    letters = "▁" + string.ascii_lowercase + string.digits + ".,!;()%"
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = dict.fromkeys([*special, *fallback, *letters, *map("".join, merges)])
    tokenizer = transformers.Siglip2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        model_max_length=64,
        padding_side="right",
    )
    _surround(tokenizer.backend_tokenizer, None, "<eos>")
    return tokenizer


def bert_tokenizer(inputs: list[str]) -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = string.ascii_lowercase + string.digits + ".,!;()%"
    tokens = dict.fromkeys([*special, *WORDS, *letters, *(f"##{letter}" for letter in letters)])
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    _surround(tokenizer, "[CLS]", "[SEP]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        pad_token="[PAD]",
        model_max_length=64,
        model_input_names=inputs,
    )


def _sentencepiece_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=model,
        vocab_size=200,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        normalization_rule_name="nmt_nfkc_cf",
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    transformers.SiglipTokenizer(
        str(path), pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    ).save_pretrained(folder)


def _surround(tokenizer: Tokenizer, start: str | None, end: str) -> None:
    tokens = [(token, tokenizer.token_to_id(token)) for token in (start, end) if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}" if start else f"$A {end}", special_tokens=tokens
    )


def _special(tokenizer: Any) -> dict[str, Any]:
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": first,
        "eos_token_id": end,
        "pad_token_id": tokenizer.pad_token_id,
    }


# Models and processors


def _siglip_text(tokenizer: Any) -> dict[str, Any]:
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return (
        TOWER
        | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        | {"max_position_embeddings": 64, "projection_size": 64}
        | ends
    )


def _clip_images(folder: Path) -> Path:
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def _save(kind: Any, config: Any, seed: int, folder: Path) -> None:
    torch.manual_seed(seed)
    model = kind(config).eval()
    spread(model)
    model.save_pretrained(folder)


def rescale(folder: Path, scale: float) -> None:
    """Give a checkpoint another multiplier; one with a bias keeps its logits where they were."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if "temperature" in tensors:
        tensors["temperature"].fill_(1 / scale)
    else:
        tensors["logit_scale"].fill_(math.log(scale))
    save_file(tensors, path, metadata={"format": "pt"})


def pickle_weights(folder: Path, *, parts: int = 1) -> None:
    """Replace a checkpoint's safetensors by pickles, as torch.save writes them."""
    path = folder / "model.safetensors"
    write_pickles(folder, load_file(path), parts)
    path.unlink()


def write_pickles(folder: Path, state: dict[str, torch.Tensor], parts: int = 1) -> None:
    """Write weights as ``pytorch_model.bin``; in several parts with an index beside them."""
    if parts == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    weight_map = {}
    for part in range(parts):
        file = f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
        names = list(state)[part::parts]
        torch.save({name: state[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def spread(model: torch.nn.Module) -> None:
    """Scale the weights so that different inputs get clearly different embeddings."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 4:
                # Convolutions: by their fan-in, or EfficientNet's many would explode.
                parameter.normal_(0.0, 2 / math.sqrt(parameter[0].numel()))
            elif parameter.ndim >= 2:
                parameter.normal_(0.0, 1.0 if "embedding" in name else 0.25)
            elif name == "logit_bias":
                parameter.fill_(-2.5)
            elif name == "logit_scale" and hasattr(model, "logit_bias"):
                parameter.fill_(3.0)
