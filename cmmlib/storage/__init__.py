"""Files that are written whole or not at all, the cache of embeddings, and whether a host responds."""
