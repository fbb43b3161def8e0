"""Label files, the taxonomies in them, and probabilities rolled up along a taxonomy.

1. ``reading.read`` picks a reader by the suffix of the file: ``tables`` or ``trees``.
2. The reader adds the entries of the file to a ``builder.TaxonomyBuilder``.
3. ``TaxonomyBuilder.build`` resolves parents and returns a ``model.Taxonomy``: nodes in columns.
4. ``structure.Structure`` looks things up in it: ancestors, ranks, the prompts of a label.
5. ``rollup`` groups labels by their ancestors and reduces their probabilities to those of nodes.

``check`` finds labels that are easily confused, ``packing`` stores a taxonomy as bytes, and
``graph`` holds the lists of lists and the graph walks that the others are built on.
"""

from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.reading import collect, read

__all__ = ["Taxonomy", "collect", "read"]
