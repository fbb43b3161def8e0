"""Benchmarks that time zsic-index and its peers in turns, on the same work."""
