"""Training batches: augmented drawings of distinct concepts, and captions for them."""

from __future__ import annotations

import random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from zsic_index.builtin.train.augment import DrawingTraits, augment
from zsic_index.builtin.train.captions import draw_caption
from zsic_index.builtin.train.concepts import Concept
from zsic_index.builtin.train.drawings import Drawings
from zsic_index.builtin.train.sets import SETS
from zsic_index.builtin.train.tokens import Kind, encode


class Batches:
    """Source of training batches in which all concepts are equally frequent."""

    def __init__(
        self,
        drawings: Drawings,
        concepts: list[Concept],
        tokenizer: Tokenizer,
        kind: Kind,
        seed: int,
    ) -> None:
        """Group the drawings that may be trained on by concept."""
        self._concepts = concepts
        self._tokenizer = tokenizer
        self._kind = kind
        self._pixels = torch.from_numpy(drawings.pixels)
        self._monochrome = torch.tensor([item.monochrome for item in SETS])[
            torch.from_numpy(drawings.drawing_set)
        ]
        rows = np.flatnonzero(drawings.training(concepts))
        groups: dict[int, list[int]] = {}
        for row, concept in zip(rows, drawings.concept[rows], strict=True):
            groups.setdefault(int(concept), []).append(int(row))
        self._groups = groups
        self.seen = torch.tensor(sorted(groups))  # indices of the trained concepts
        self._chiral = torch.tensor([concept.chiral for concept in concepts])
        self._random = random.Random(seed)
        self.rng = torch.Generator().manual_seed(seed)
        self._queue: list[int] = []

    def concepts(self, count: int) -> list[int]:
        """Return ``count`` distinct trained concepts; each is drawn once before any is repeated."""
        if len(self._queue) < count:
            # The few concepts left over from the last round come first in the next one.
            fresh = [index for index in self._groups if index not in set(self._queue)]
            self._random.shuffle(fresh)
            self._queue = self._queue + fresh
        chosen, self._queue = self._queue[:count], self._queue[count:]
        return chosen

    def images(self, concepts: list[int], strength: float) -> Tensor:
        """Draw one augmented image per concept: (len(concepts), 3, 64, 64) float32."""
        rows = torch.tensor([self._random.choice(self._groups[index]) for index in concepts])
        traits = DrawingTraits(self._chiral[concepts], self._monochrome[rows])
        return augment(self._pixels[rows], traits, strength, self.rng)

    def captions(self, concepts: list[int]) -> Tensor:
        """Draw one caption per concept: (len(concepts), length) int64."""
        texts = [draw_caption(self._concepts[index], self._random) for index in concepts]
        return encode(self._tokenizer, self._kind, texts)
