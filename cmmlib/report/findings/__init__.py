"""What the numbers of one run say: sentences (Markdown) and tables, in plain functions, a module a chapter.

A chapter's fixed prose holds for every study. Whatever depends on data is said here, so that every sentence is
computed, and each comparison chooses its words by the numbers. Text from outside is
escaped by `formatting.name` and `plain`.
"""
