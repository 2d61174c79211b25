"""Dual encoders of open_clip, their checkpoints, and embeddings through the cache."""

WEIGHT_ENDINGS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}  # endings of files of weights
