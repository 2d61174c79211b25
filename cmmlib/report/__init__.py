"""What a reader sees: executed chapters, pages, figures, the book."""
