"""Data sets: images, labels and class names, or embeddings that somebody already has."""
