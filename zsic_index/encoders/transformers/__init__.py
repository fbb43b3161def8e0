"""Checkpoints in transformers' format.

``files`` finds a checkpoint, ``encoder`` loads the towers, ``fingerprint`` hashes a model that is
already in memory. Importing this package or ``files`` imports neither torch nor transformers.
"""
