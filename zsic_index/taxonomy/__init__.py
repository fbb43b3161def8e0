"""Labels, and what is known about them: parents, ranks, other names, templates.

``read`` and ``collect`` make a ``Taxonomy``; ``structure`` answers questions about what is above
and below, ``rollup`` adds up probabilities along it, ``check`` looks for labels that get in each
other's way, and ``packing`` turns it into bytes and back.
"""

from zsic_index.taxonomy.model import Taxonomy
from zsic_index.taxonomy.reading import collect, read

__all__ = ["Taxonomy", "collect", "read"]
