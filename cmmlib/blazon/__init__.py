"""The embedded world: a small, complete, known world of rendered shields and the names that heraldry gives them.

A model organism. No weights of CLIP and no photographs can ship with this package, so here is a world for a real dual
encoder, trained from scratch, whose names behave as CLIP's do: a few are common words, many are rare, some mean two
things. Nothing is broken by hand for a single class.
"""
