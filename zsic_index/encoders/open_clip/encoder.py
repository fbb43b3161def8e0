"""Encoders from checkpoints of open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from zsic_index.encoders.base import Pixels
from zsic_index.encoders.checkpoint import Checkpoint, OpenClipFiles
from zsic_index.encoders.tensors import read_scalars
from zsic_index.encoders.two_towers import (
    TextInput,
    TwoTowerEncoder,
    exponentiate,
    select_device,
)
from zsic_index.errors import ModelError, first_line
from zsic_index.records import ModelInfo

# Pure precisions: the mixed ones fail on text towers whose projection is a layer, as SigLIP's is.
_PRECISION = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}


class OpenClipEncoder(TwoTowerEncoder):
    """An Encoder with open_clip's own model, tokenizer and image transform.

    Args:
        model: open_clip model with two towers.
        tokenizer: tokenizer of the model.
        dim: D, the length of an embedding.
        dtype: dtype that the towers compute in.
        scalars: logit scale and bias by name, from the file of weights.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        dim: int,
        dtype: torch.dtype,
        scalars: Mapping[str, float],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._transform = image_transform_v2(
            PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
        )
        has_bias = model.logit_bias is not None
        info = ModelInfo(
            model_type="open_clip",
            dim=dim,
            logit_scale=exponentiate(scalars["logit_scale"]),
            logit_bias=scalars.get("logit_bias", 0.0) if has_bias else 0.0,
            # Models trained with SigLIP's loss have a bias, those with CLIP's have none.
            activation="sigmoid" if has_bias else "softmax",
        )
        text = TextInput(
            # A text tower of transformers has room for more tokens than it was trained with.
            length=int(tokenizer.context_length),
            # open_clip's text towers add position embeddings over their whole length.
            always_padded=True,
            special=_special_tokens(tokenizer),
        )
        size = model.visual.preprocess_cfg["size"]
        image_size = max(size) if isinstance(size, tuple | list) else int(size)
        super().__init__(info, text, image_size, model.logit_scale.device, dtype)

    @classmethod
    def load(cls, checkpoint: Checkpoint, files: OpenClipFiles, *, device: str) -> OpenClipEncoder:
        """Load an encoder from a checkpoint's files; see ``encoders.load``."""
        target = select_device(device)
        is_folder = files.name.startswith("local-dir:")
        tag = files.tag and open_clip.get_pretrained_cfg(files.name, files.tag)
        try:
            # First, because it refuses pickles in plain words.
            scalars = read_scalars([files.weights])
            configuration = open_clip.get_model_config(files.name)
            parts = {}
            if files.text_model is not None:
                # open_clip would look for another commit of it on the Hub.
                source = {"hf_model_name": str(files.text_model), "hf_model_pretrained": False}
                parts["text_cfg"] = configuration["text_cfg"] | source
            model = open_clip.create_model(
                files.name,
                pretrained=None if is_folder else str(files.weights),
                precision=_PRECISION[checkpoint.dtype],
                device=target,
                force_preprocess_cfg=tag or None,
                pretrained_text=False,
                **parts,
            )
            tokenizer = open_clip.get_tokenizer(files.name)
            dim = configuration["embed_dim"]
        except Exception as error:
            # For an unusable checkpoint open_clip raises anything from RuntimeError to
            # AssertionError.
            reason = first_line(error)
            raise ModelError(
                f"model {checkpoint.model_id}: cannot be loaded from {files.weights}: {reason}"
            ) from error
        dtype = getattr(torch, checkpoint.dtype)
        return cls(model.eval(), tokenizer, dim, dtype, scalars)

    def loaded_fingerprint(self) -> None:
        """Return None: only transformers' pipeline compares it, and has no such models."""

    def preprocess(self, image: Image.Image) -> Pixels:
        """Turn one RGB image into inputs of the vision tower; see Encoder."""
        return {"image": self._transform(image).numpy()}

    def _tokenise(self, prompts: list[str]) -> list[list[int]]:
        # open_clip's tokenizers always pad and cut: at twice the length, over-long prompts show.
        length = 2 * self._text.length
        empty, *padded_ids = self._tokenizer(["", *prompts], context_length=length).tolist()
        # Not the last: some tokenizers put a token of their own after the padding.
        padding = empty[-2]
        # A tokenizer that pads with its end token: put back the end that is removed as padding.
        pads_with_end = padding in self._text.special
        return [
            [token for token in ids if token != padding] + [padding] * pads_with_end
            for ids in padded_ids
        ]

    def _text_inputs(self, prompts: list[str]) -> Mapping[str, Tensor]:
        return {"text": self._tokenizer(prompts, context_length=self._text.length)}

    def _text_tower(self, **inputs: Tensor) -> Tensor:
        # CoCa's arguments have other names, and it normalises unless told not to.
        features: Tensor = self._model.encode_text(*inputs.values(), normalize=False)
        return features

    def _image_tower(self, **inputs: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(*inputs.values(), normalize=False)
        return features


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the names of special tokens by id: unknown and padding only if they end a text."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return {token: tokenizer.decoder[token] for token in tokenizer.all_special_ids}
    pairs = zip(inner.all_special_ids, inner.all_special_tokens, strict=True)
    ends = {inner.eos_token_id, inner.sep_token_id, inner.bos_token_id}
    harmless = {inner.unk_token_id, inner.pad_token_id} - ends
    return {token: name for token, name in pairs if token not in harmless}
