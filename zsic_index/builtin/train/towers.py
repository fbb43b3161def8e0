"""The two models: sizes, initial weights, and a forward pass for training on a CPU.

The modules are those of ``transformers``, so that the weights load there. The forward pass here is
faster: it drops patches before the tower, and joins the query, key and value products.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from zsic_index.builtin.train.augment import SIDE
from zsic_index.builtin.train.tokens import END, LENGTH, PADDING

PATCH = 8
PATCHES = (SIDE // PATCH) ** 2
WIDTH = 192
# ReLU, because GELU alone took a sixth of a training step on the CPU.
_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_act": "relu",
}
_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
    "hidden_act": "relu",
    "eos_token_id": END,
}
_TOKEN_STD = 0.3  # with 0.02, the libraries' default, the text tower stays at chance for long
_POSITION_STD = 0.1


def new_clip(vocabulary: int) -> CLIPModel:
    """Return an untrained CLIP."""
    config = CLIPConfig(
        text_config=CLIPTextConfig(
            **_TEXT,
            vocab_size=vocabulary,
            projection_dim=WIDTH,
            bos_token_id=0,
            pad_token_id=PADDING["clip"],
        ).to_dict(),
        vision_config=CLIPVisionConfig(**_VISION, projection_dim=WIDTH).to_dict(),
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=END,
        pad_token_id=PADDING["clip"],
    )
    model = CLIPModel(config)
    _initialise(model)
    return model


def new_siglip(vocabulary: int) -> SiglipModel:
    """Return an untrained SigLIP."""
    config = SiglipConfig(
        text_config=SiglipTextConfig(
            **_TEXT,
            vocab_size=vocabulary,
            projection_size=WIDTH,
            bos_token_id=None,
            pad_token_id=PADDING["siglip"],
        ).to_dict(),
        vision_config=SiglipVisionConfig(**_VISION).to_dict(),
    )
    model = SiglipModel(config)
    _initialise(model)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10.0)
    return model


def image_embeddings(
    model: CLIPModel | SiglipModel, pixels: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Run the vision tower.

    Args:
        model: either model.
        pixels: (b, 3, 64, 64) float32, normalised.
        keep: (b, kept) int64, numbers of the patches to use; None for all 64.

    Returns:
        (b, 192) unit-norm float32.
    """
    tower = model.vision_model
    patches = _patches(pixels)
    places = tower.embeddings.position_embedding.weight
    clip = isinstance(model, CLIPModel)
    of_patches = (places[1:] if clip else places).expand(len(pixels), -1, -1)
    if keep is not None:
        patches = patches.gather(1, keep[:, :, None].expand(-1, -1, patches.shape[2]))
        of_patches = of_patches.gather(1, keep[:, :, None].expand(-1, -1, WIDTH))
    embedding = tower.embeddings.patch_embedding
    hidden = functional.linear(patches, embedding.weight.flatten(1), embedding.bias) + of_patches
    if clip:
        first = (tower.embeddings.class_embedding + places[0]).expand(len(pixels), 1, -1)
        hidden = tower.pre_layrnorm(torch.cat([first, hidden], dim=1))
    hidden = _layers(tower.encoder.layers, hidden, None)
    if clip:
        pooled = model.visual_projection(tower.post_layernorm(hidden[:, 0]))
    else:
        pooled = _attention_pool(tower.head, tower.post_layernorm(hidden))
    return functional.normalize(pooled.float(), dim=-1)


def text_embeddings(model: CLIPModel | SiglipModel, ids: Tensor) -> Tensor:
    """Run the text tower: (b, length) int64 → (b, 192) unit-norm float32."""
    tower = model.text_model
    length = ids.shape[1]
    places = tower.embeddings.position_embedding.weight[:length]
    hidden = functional.embedding(ids, tower.embeddings.token_embedding.weight) + places
    if isinstance(model, CLIPModel):
        causal = torch.full((length, length), float("-inf")).triu(1)
        hidden = _layers(tower.encoder.layers, hidden, causal)
        end = (ids == END).int().argmax(1)  # the first one: padding is the same token
        pooled = tower.final_layer_norm(hidden[torch.arange(len(ids)), end])
        pooled = model.text_projection(pooled)
    else:
        hidden = _layers(tower.encoder.layers, hidden, None)
        pooled = tower.head(tower.final_layer_norm(hidden[:, -1]))
    return functional.normalize(pooled.float(), dim=-1)


def random_half(count: int, rng: torch.Generator) -> Tensor:
    """Choose half of the patches for each of ``count`` images, (count, 32) int64."""
    return torch.rand(count, PATCHES, generator=rng).argsort(1)[:, : PATCHES // 2]


@torch.no_grad()
def vision_from_clip(target: SiglipModel, source: CLIPModel, pixels: Tensor) -> None:
    """Initialise a SigLIP's vision tower with that of a trained CLIP.

    CLIP normalises before its first layer, SigLIP does not. The centring and the affine part of the
    normalisation are linear and are folded exactly into the patch and position embeddings. The
    division by the standard deviation is approximated by one mean factor over ``pixels``
    (b, 3, 64, 64), which training corrects.
    """
    clip, siglip = source.vision_model, target.vision_model
    weight = clip.embeddings.patch_embedding.weight.flatten(1)
    places = clip.embeddings.position_embedding.weight[1:]
    before = functional.linear(_patches(pixels), weight) + places
    norm = clip.pre_layrnorm
    gain = norm.weight / (before.var(-1, correction=0) + norm.eps).sqrt().mean()
    embedding = siglip.embeddings.patch_embedding
    embedding.weight.copy_(
        ((weight - weight.mean(0, keepdim=True)) * gain[:, None]).view_as(embedding.weight)
    )
    embedding.bias.copy_(norm.bias)
    siglip.embeddings.position_embedding.weight.copy_(
        (places - places.mean(-1, keepdim=True)) * gain
    )
    siglip.encoder.load_state_dict(clip.encoder.state_dict())
    siglip.post_layernorm.load_state_dict(clip.post_layernorm.state_dict())


def _initialise(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "token_embedding" in name:
            nn.init.normal_(parameter, std=_TOKEN_STD)
        elif "position_embedding" in name or "class_embedding" in name:
            nn.init.normal_(parameter, std=_POSITION_STD)
        elif parameter.ndim >= 2 and "probe" not in name:
            nn.init.xavier_uniform_(parameter.view(len(parameter), -1))
        elif name.endswith("bias") and "logit" not in name:
            nn.init.zeros_(parameter)


def _patches(pixels: Tensor) -> Tensor:
    """Return the patches of images in the order of the patch convolution: (b, 64, 192)."""
    return functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)


def _layers(layers: Iterable[Any], hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Run encoder layers on (b, s, width); ``mask`` (s, s) is added to the attention logits."""
    for layer in layers:
        hidden = hidden + _self_attention(layer, layer.layer_norm1(hidden), mask)
        middle = functional.relu(layer.mlp.fc1(layer.layer_norm2(hidden)))
        hidden = hidden + layer.mlp.fc2(middle)
    return hidden


def _self_attention(layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    own = layer.self_attn
    weight = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])
    bias = torch.cat([own.q_proj.bias, own.k_proj.bias, own.v_proj.bias])
    b, s, width = hidden.shape
    joined = functional.linear(hidden, weight, bias).view(b, s, 3, own.num_heads, own.head_dim)
    query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
    logits = (query * own.scale) @ key.transpose(-1, -2)
    if mask is not None:
        logits = logits + mask.to(logits.dtype)
    mixed = logits.softmax(-1).to(value.dtype) @ value
    return cast(Tensor, own.out_proj(mixed.transpose(1, 2).reshape(b, s, width)))


def _attention_pool(head: Any, hidden: Tensor) -> Tensor:
    """Apply SigLIP's pooling: a learned probe attends to the patches, then a residual MLP."""
    probe = head.probe.expand(len(hidden), -1, -1)
    pooled = head.attention(probe, hidden, hidden, need_weights=False)[0]
    middle = functional.relu(head.mlp.fc1(head.layernorm(pooled)))
    return cast(Tensor, (pooled + head.mlp.fc2(middle))[:, 0])
