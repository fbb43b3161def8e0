"""Augmentation of drawings: geometry, background, colour, blur, noise, line art.

All functions work on whole batches in torch. ``strength`` in [0, 1] scales the range of all random
changes: training increases it over the run, evaluation on augmented images uses 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 64
MEAN = 0.5
STD = 0.5
LINE_ART_SHARE = 0.06
OUTLINE_SHARE = 0.08
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class DrawingTraits:
    """Properties of each drawing in a batch that limit its augmentation.

    Attributes:
        chiral: (b,) bool: not to be mirrored, and turned only a little.
        monochrome: (b,) bool: black on transparent, so that any colour may replace the black.
    """

    chiral: Tensor
    monochrome: Tensor


def augment(
    drawings: Tensor,
    traits: DrawingTraits,
    strength: float,
    rng: torch.Generator,
    *,
    restyle: bool = True,
) -> Tensor:
    """Turn drawings into images.

    Args:
        drawings: (b, 4, h, w) uint8, RGBA with straight alpha.
        traits: of the same batch.
        strength: 0 gives a centred drawing on a plain background, 1 the full range of changes.
        rng: generator of all random numbers.
        restyle: whether some drawings may become line art or get outlines.

    Returns:
        (b, 3, 64, 64) float32, normalised as the models expect.
    """
    rgba = drawings.float().div_(255)
    alpha = rgba[:, 3:]
    ink = _monochrome_ink(rgba[:, :3], traits.monochrome, rng)
    premultiplied = torch.cat([ink * alpha, alpha], dim=1)
    moved = _move(premultiplied, traits.chiral, strength, rng)
    colour, alpha = moved[:, :3], moved[:, 3:]
    ground = _backgrounds(len(moved), strength, rng)
    ground = _contrast(ground, colour, alpha, traits.monochrome)
    if restyle:
        colour, alpha = _restyle(colour, alpha, ground, strength, rng)
    image = colour + ground * (1 - alpha)
    image = _colours(image, strength, rng)
    image = _blur(image, strength, rng)
    noise = _uniform(len(image), 0, 0.06 * strength, rng).view(-1, 1, 1, 1)
    image = image + noise * torch.randn(image.shape, generator=rng)
    return normalise(image.clamp_(0, 1))


def clean(drawings: Tensor) -> Tensor:
    """Put drawings on white without augmentation: (b, 4, h, w) uint8 → (b, 3, 64, 64) float32."""
    rgba = drawings.float().div_(255)
    image = rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:])
    size = (SIDE, SIDE)
    small = functional.interpolate(
        image, size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return normalise(small.clamp_(0, 1))


def normalise(image: Tensor) -> Tensor:
    """Map values in [0, 1] to the range that the image processors produce."""
    return (image - MEAN) / STD


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng) * (high - low) + low


def _chance(count: int, probability: float, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng) < probability


def _monochrome_ink(rgb: Tensor, monochrome: Tensor, rng: torch.Generator) -> Tensor:
    """Replace the black of monochrome drawings by a random colour, mostly a dark one."""
    count = len(rgb)
    ink = torch.rand(count, 3, 1, 1, generator=rng) * _uniform(count, 0, 1, rng).view(-1, 1, 1, 1)
    return torch.where(monochrome.view(-1, 1, 1, 1), ink.expand_as(rgb), rgb)


def _move(rgba: Tensor, chiral: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Scale, turn, shear, shift and mirror: (b, 4, h, w) → (b, 4, 64, 64)."""
    count = len(rgba)
    scale = _uniform(count, 0.95 - 0.40 * strength, 0.95 + 0.15 * strength, rng)
    widest = torch.where(chiral, 7.0, 22.0) * math.pi / 180 * strength
    angle = _uniform(count, -1, 1, rng) * widest
    shear = _uniform(count, -0.15, 0.15, rng) * strength
    stretch = 1 + _uniform(count, -0.1, 0.1, rng) * strength
    mirror = torch.where(_chance(count, 0.5 * strength, rng) & ~chiral, -1.0, 1.0)
    # Shift within what the scale leaves free, and a little beyond.
    room = (1 - scale).clamp(min=0) + 0.06 * strength
    shift = (torch.rand(count, 2, generator=rng) * 2 - 1) * room[:, None] * strength
    # The grid maps output to input, so the scale is inverted.
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = cos * mirror * stretch
    theta[:, 0, 1] = (shear * cos - sin) * mirror
    theta[:, 1, 0] = sin
    theta[:, 1, 1] = (shear * sin + cos) / stretch
    theta[:, :, 2] = -(theta[:, :, :2] @ shift[:, :, None])[:, :, 0]
    grid = functional.affine_grid(theta, [count, 4, SIDE, SIDE], align_corners=False)
    return functional.grid_sample(
        rgba, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _backgrounds(count: int, strength: float, rng: torch.Generator) -> Tensor:
    """Draw backgrounds: white, one colour, a gradient, or blotches of two sizes."""
    first = torch.rand(count, 3, 1, 1, generator=rng)
    second = torch.rand(count, 3, 1, 1, generator=rng)
    angle = _uniform(count, 0, 2 * math.pi, rng).view(-1, 1, 1)
    line = torch.linspace(-0.5, 0.5, SIDE)
    ramp = torch.cos(angle) * line[None, None, :] + torch.sin(angle) * line[None, :, None]
    ramp = (ramp + 0.5).clamp(0, 1)[:, None]
    ground = first.expand(-1, -1, SIDE, SIDE).clone()
    kind = torch.rand(count, generator=rng)
    gradient = (kind > 0.45) & (kind <= 0.65)
    ground[gradient] = (first + (second - first) * ramp)[gradient]
    for low, cells in ((0.65, 3), (0.85, 9)):
        rows = (kind > low) & (kind <= low + 0.2)
        number = int(rows.sum())
        if number:
            blotches = torch.rand(number, 3, cells, cells, generator=rng)
            wide = functional.interpolate(
                blotches, size=(SIDE, SIDE), mode="bilinear", align_corners=False
            )
            depth = _uniform(number, 0.3, 0.9, rng).view(-1, 1, 1, 1)
            ground[rows] = first[rows] * (1 - depth) + wide * depth
    # Most drawings are shown on plain white; at low strength there is nothing else.
    plain = (kind < 0.25) | _chance(count, 1 - strength, rng)
    ground[plain] = 1.0
    return ground


def _contrast(ground: Tensor, colour: Tensor, alpha: Tensor, monochrome: Tensor) -> Tensor:
    """Invert a background on which a monochrome drawing would be invisible."""
    luma = torch.tensor(_LUMA).view(1, 3, 1, 1)
    weight = alpha.sum((2, 3)).clamp(min=1)
    of_ink = ((colour * luma).sum(1, keepdim=True).sum((2, 3)) / weight)[:, 0]
    of_ground = (ground * luma).sum(1).mean((1, 2))
    close = monochrome & ((of_ink - of_ground).abs() < 0.3)
    ground[close] = 1 - ground[close]
    still = monochrome & ((of_ink - (ground * luma).sum(1).mean((1, 2))).abs() < 0.2)
    ground[still] = torch.where(of_ink[still] > 0.5, 0.0, 1.0).view(-1, 1, 1, 1)
    return ground


def _restyle(
    colour: Tensor, alpha: Tensor, ground: Tensor, strength: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Make a few drawings line art, and give a few others dark outlines."""
    draw = torch.rand(len(colour), generator=rng)
    lines = draw < LINE_ART_SHARE * strength
    outlined = (draw > 1 - OUTLINE_SHARE * strength) & ~lines
    for rows, keep in ((lines, False), (outlined, True)):
        if not bool(rows.any()):
            continue
        # Edges of the drawing on mid gray, so that white parts have edges too.
        over = colour[rows] + 0.4 * (1 - alpha[rows])
        spread = functional.max_pool2d(over, 3, 1, 1) + functional.max_pool2d(-over, 3, 1, 1)
        edge = (spread.amax(1, keepdim=True) * 3 - 0.25).clamp(0, 1)
        light = ground[rows].mean((1, 2, 3)) > 0.45
        ink = torch.where(light, 0.05, 0.95).view(-1, 1, 1, 1)
        if keep:
            colour[rows] = colour[rows] * (1 - edge) + ink * edge
            alpha[rows] = alpha[rows] * (1 - edge) + edge
        else:
            colour[rows] = ink * edge
            alpha[rows] = edge
    return colour, alpha


def _colours(image: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Change hue a little, saturation, contrast and brightness more; some images turn grey."""
    count = len(image)
    luma = (image * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = 1 + _uniform(count, -0.5, 0.4, rng) * strength
    saturation[_chance(count, 0.08 * strength, rng)] = 0
    image = luma + (image - luma) * saturation.view(-1, 1, 1, 1)
    image = torch.einsum("bij,bjhw->bihw", _hue(count, strength, rng), image)
    contrast = 1 + _uniform(count, -0.3, 0.2, rng) * strength
    brightness = _uniform(count, -0.15, 0.15, rng) * strength
    middle = image.mean((1, 2, 3), keepdim=True)
    return (image - middle) * contrast.view(-1, 1, 1, 1) + middle + brightness.view(-1, 1, 1, 1)


def _hue(count: int, strength: float, rng: torch.Generator) -> Tensor:
    """Rotations about the grey axis by up to 18 degrees, (count, 3, 3)."""
    angle = _uniform(count, -0.32, 0.32, rng).view(-1, 1, 1) * strength
    axis = 3**-0.5
    cross = torch.tensor([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    outer = torch.full((3, 3), 1 / 3)
    return (
        torch.cos(angle) * torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * outer
    )


def _blur(image: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Blur some images a little, as a resized photograph would be."""
    rows = _chance(len(image), 0.4 * strength, rng)
    number = int(rows.sum())
    if number:
        soft = functional.avg_pool2d(
            functional.pad(image[rows], (1, 1, 1, 1), mode="replicate"), 3, 1
        )
        share = _uniform(number, 0, 1, rng).view(-1, 1, 1, 1)
        image[rows] = image[rows] * (1 - share) + soft * share
    return image
