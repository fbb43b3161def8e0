"""LabelIndex: build, open, search and roll up a fixed set of labels.

``label_index`` has the class, on top of ``contents`` (labels, embeddings, taxonomy). Building:
``arguments`` checks, ``builder`` plans, encodes what is missing and publishes; ``opening`` opens
and verifies files. Asking: ``encoder`` embeds images and labels, ``searcher`` searches on arrays
(on a GPU with ``gpu_copy``), ``scorers`` turn embeddings into predictions of labels (``subset``,
``naming``) and of taxonomy nodes (``node_scores``). ``listing`` prints and searches labels.
"""

from zsic_index.label_index.label_index import LabelIndex

__all__ = ["LabelIndex"]
