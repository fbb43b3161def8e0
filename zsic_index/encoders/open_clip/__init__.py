"""Checkpoints in open_clip's format.

``files`` finds a checkpoint, ``names`` looks up what open_clip's names stand for, ``encoder`` loads
the towers. Importing this package or ``files`` imports neither torch nor open_clip.
"""
