"""Prompt templates that fit this world, and odd ones that do not, for the chapter on prompts."""
