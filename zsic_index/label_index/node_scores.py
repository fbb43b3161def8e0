"""Predictions of taxonomy nodes from the per-group numbers of a scan.

A group is the labels that are below the same nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.records import NodePrediction
from zsic_index.scan.groups import Grouping, Reduction
from zsic_index.taxonomy.rollup import (
    LabelGroups,
    find_deepest,
    group_labels_at,
    group_labels_below,
)
from zsic_index.taxonomy.structure import Structure

NONE = "(none)"
"""Name of the prediction for labels that are below no node of a rank."""


class NodeScores:
    """Turns probabilities of groups of labels into predictions of nodes.

    Attributes:
        grouping: group of each row of the index.
    """

    def __init__(self, structure: Structure, groups: LabelGroups, reduction: Reduction) -> None:
        self._structure = structure
        self._groups = groups
        self._reduction = reduction
        self.grouping = Grouping(
            groups.group_of[structure.row_order], groups.outside + 1, reduction
        )

    @classmethod
    def at_rank(cls, structure: Structure, rank: str, reduction: Reduction) -> NodeScores:
        """Return the scores of the nodes of a rank.

        Raises:
            LabelError: when there is no such rank.
        """
        return cls(structure, group_labels_at(structure, rank), reduction)

    @classmethod
    def of_all(cls, structure: Structure, reduction: Reduction) -> NodeScores:
        """Return the scores of all nodes with something below them."""
        inner = np.flatnonzero(structure.children.counts > 0)
        return cls(structure, group_labels_below(structure, inner), reduction)

    def best(self, values: Float64, top_k: int) -> list[list[NodePrediction]]:
        """Return the ``top_k`` most probable nodes for each of (B, G) probabilities of groups.

        Under softmax, labels that are below none of the nodes are one more prediction, so that
        all predictions add up to 1.
        """
        nodes = self._groups.nodes
        probabilities = self._of_nodes(values)
        if self._reduction == "sum" and (self._groups.group_of == self._groups.outside).any():
            nodes = np.append(nodes, -1)
            probabilities = np.append(probabilities, values[:, -1:], axis=1)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        return [
            [self._prediction(int(nodes[at]), float(line[at])) for at in best]
            for line, best in zip(probabilities, order, strict=True)
        ]

    def deepest(
        self,
        values: Float64,
        rows: Int64,
        probabilities: Float64,
        floor: float,
        by_rank: Mapping[str, float],
    ) -> list[NodePrediction | None]:
        """Return for each image the deepest node that is probable enough, or None.

        Args:
            values: (B, G) probabilities of groups.
            rows: (B, k) rows of the most probable labels; no other label may reach the floor.
            probabilities: (B, k) probabilities of these labels.
            floor: least probability of a node.
            by_rank: other floors, for nodes of some ranks.
        """
        structure = self._structure
        label_nodes = structure.taxonomy.label_nodes[structure.row_order]
        predictions: list[NodePrediction | None] = []
        for of_inner, best, of_best in zip(
            self._of_nodes(values), rows, probabilities, strict=True
        ):
            of_all = np.zeros(len(structure.label_of))
            of_all[label_nodes[best]] = of_best
            of_all[self._groups.nodes] = of_inner
            node = find_deepest(structure, of_all, floor, by_rank)
            predictions.append(
                None if node is None else self._prediction(node, float(of_all[node]))
            )
        return predictions

    def _of_nodes(self, values: Float64) -> Float64:
        """Return (B, R) probabilities of nodes from those of groups."""
        match self._reduction:
            case "sum":
                # Rounding can put the sum of all groups an ulp over 1.
                return np.minimum(self._groups.node_mass(values), 1.0)
            case "max":
                return self._groups.node_max(values)
            case "noisy-or":
                return self._groups.node_noisy_or(values)

    def _prediction(self, node: int, probability: float) -> NodePrediction:
        if node < 0:
            return NodePrediction(NONE, probability, None, None, ())
        taxonomy = self._structure.taxonomy
        rank = int(taxonomy.rank_of[node])
        return NodePrediction(
            taxonomy.names[node],
            probability,
            taxonomy.ranks[rank] if rank >= 0 else None,
            taxonomy.keys[node],
            tuple(taxonomy.names[above] for above in self._structure.path_to(node)),
        )
