"""Label and image embeddings: from the store, else from the tower."""
