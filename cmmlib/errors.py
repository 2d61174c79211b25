"""The errors of this package: bad input, a book that did not come out whole, a language model that does not answer."""


class InputError(ValueError):
    """Bad input, told in one line that names the thing and the remedy; the command line exits with 2."""


class ChapterError(RuntimeError):
    """A chapter failed or the book has a flaw; names the chapter, the cell and the error. Exit code 1."""


class ProviderError(RuntimeError):
    """A language model gave no answer, in one line with the reason and what is kept. Exit code 1."""


def one_line(error: Exception) -> str:
    """An error in one line of at most 160 characters."""
    return " ".join(str(error).split())[:160] or type(error).__name__
