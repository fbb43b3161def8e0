"""A query about images, and the same compiled against an index."""
