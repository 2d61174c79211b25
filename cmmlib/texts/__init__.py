"""Prompt templates, questions to a language model, its answers and their transcripts."""
