"""Queries about images, and their compilation against an index."""
