"""Dual encoders of open_clip, their checkpoints, and embeddings through the cache."""
