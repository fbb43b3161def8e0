"""Exact scan of a label matrix: top-k, log-partition and probabilities. Arrays only."""
