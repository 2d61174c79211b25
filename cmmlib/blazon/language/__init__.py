"""Captions of shields, word lists, and descriptions of classes, clean and noisy."""
