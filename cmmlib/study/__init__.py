"""A study: what is run, the opened run, its files, and what a language model is asked."""
