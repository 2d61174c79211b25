"""The errors of this package: bad input, a book that did not come out whole, a language model that does not answer.

What they say may quote names and texts from outside; a terminal would obey some of those, so no message has any, nor a
key.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from contextlib import suppress

_OBEYED = re.compile(  # escape sequences (of colours, titles, other strings, one letter), control, direction of text
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[PX^_][^\x1b\n]*(?:\x1b\\)?|[ -/]*[0-~])?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


_SECRET = re.compile("KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)  # in the name of a variable of the environment
_KEY = re.compile(r"\b(?:sk|gsk|xai|hf)[-_](?=[\w-]*\d)[\w-]{16,}|\bAIza[\w-]{30,}")  # as providers write them
LEAST_KEY = 8  # characters


def keys_of_environment() -> list[str]:
    """What the environment holds under the name of a key, the longest first."""
    named = {name: value.strip() for name, value in os.environ.items() if _SECRET.search(name)}
    values = {value for name, value in named.items() if not name.upper().endswith(("FILE", "PATH", "DIR"))}
    return sorted((value for value in values if len(value) >= LEAST_KEY), key=len, reverse=True)


def is_key(text: str) -> bool:
    """Whether a text is, or holds, a key of the environment, looks like one, or is one long word of letters and digits.

    >>> [is_key(text) for text in ("openai/gpt-4o-mini", "sk-SECRETKEY1234567890abc", "a1" * 16)]
    [False, True, True]
    """
    return without_keys(text) != text or bool(re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[\w-]{32,}", text))


def without_keys(text: str) -> str:
    """A text with *** for what is a key of the environment or looks like one.

    >>> without_keys("no model 'sk-SECRETKEY1234567890abc'")
    "no model '***'"
    """
    for key in keys_of_environment():
        text = text.replace(key, "***")
    return _KEY.sub("***", text)


def visible(text: str) -> str:
    r"""A text without what a terminal obeys: escape sequences, control characters, marks that turn the direction.

    Lines and tabs stay; bytes that are no text are escaped.

    >>> visible("\x1b[31mred\x1b[0m \x07bell \udcff")
    'red bell \\udcff'
    """
    return _OBEYED.sub("", text).encode(errors="backslashreplace").decode()


def is_seen(text: str) -> bool:
    r"""Whether anything of a text can be seen: not only spaces, control characters and marks without width.

    >>> [is_seen(text) for text in ("a", " ", "\x1b[31m", "\u200b\ufeff")]
    [True, False, False, False]
    """
    return any(unicodedata.category(character)[0] not in "ZC" for character in visible(text))


def tell(message: str) -> None:
    """A line for whoever runs a command, on stderr; a terminal that is gone or full stops nothing."""
    with suppress(OSError):
        print(without_keys(visible(message)), file=sys.stderr, flush=True)


class InputError(ValueError):
    """Bad input, told in one line that names the thing and the remedy; the command line exits with 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(without_keys(visible(message)).split()))


class ChapterError(RuntimeError):
    """A chapter failed or the book has a flaw; names the chapter, the cell and the error. Exit code 1."""

    def __init__(self, message: str):
        super().__init__(without_keys(visible(message)))


class ProviderError(RuntimeError):
    """A language model gave no answer, in one line with the reason and what is kept. Exit code 1."""

    def __init__(self, message: str):
        super().__init__(" ".join(without_keys(visible(message)).split()))


def one_line(error: Exception) -> str:
    """An error of another program in one line of at most 160 characters, without torch's advice to trust a file."""
    if "Weights only load failed" in str(error):
        return "it is damaged, or holds Python objects, which are not run"
    return " ".join(visible(str(error)).split())[:160] or type(error).__name__


def why(error: OSError) -> str:
    """Why the system refused, in a few words: the part of a system's error that does not name the file.

    >>> why(FileNotFoundError(2, "No such file or directory", "a.txt"))
    'no such file or directory'
    """
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, _, cause = error.args[0][0]  # the first of several copies
        return f"{os.fspath(source)}: {cause}"
    return (error.strerror or one_line(error)).lower()


def counted(n: int, one: str, many: str | None = None) -> str:
    """`1 class`, `12 classes`: a number and its noun.

    >>> counted(1, "class", "classes"), counted(1200, "image")
    ('1 class', '1,200 images')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


SHOWN = 3  # names that a line gives as examples


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
