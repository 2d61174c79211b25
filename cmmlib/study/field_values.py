"""Values that no field of a study can have, whatever it means: each function says what is wrong, or gives None."""

from __future__ import annotations

from typing import Any

from cmmlib.errors import is_key
from cmmlib.storage.network import has_secrets, is_address

LARGEST = 10**12  # of an integer
TEXTS = ("base_template", "llm", "llm_base_url", "domain", "device")  # fields that name no file


def value_fault(value: Any) -> str | None:
    """No machine counts so far, and Python writes no integers of thousands of digits; no field is yes or no; an empty
    text is a shell's variable that nobody set, more often than a wish.
    """
    if isinstance(value, bool):
        return f"expected a number or a text, got {value}; in YAML, write no, yes, off or on in quotes"
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        return f"the number is above {LARGEST}"
    if isinstance(value, str) and not value.strip():
        return f"the text {value!r} is empty: write one, or leave it out"
    return None


def text_fault(value: Any) -> str | None:
    r"""A text is read by a model and written into files. A shell in another encoding gives bytes that are no text,
    which Python keeps as halves of a character.

    >>> text_fault("une photo d\u00e9 {}."), text_fault("une photo d\udce9 {}.")
    (None, 'it is not UTF-8 text: write it again where the terminal, or the file, is in UTF-8')
    """
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return "it is not UTF-8 text: write it again where the terminal, or the file, is in UTF-8"
    return None


def model_fault(name: str) -> str | None:
    """A language model's name is written into the run; a key in its place must be neither there nor in a message."""
    if is_key(name):
        return "a key is no name of a model: name the model, and give the key in the environment"
    return None


def address_fault(url: str) -> str | None:
    """A language model's address is written into the run, its notebooks and its book."""
    if has_secrets(url):
        return (
            "an address with a user, a password, a query, a fragment or a key in it would be written into the run's "
            "files: leave that out, and give the key in the environment, as in OPENAI_API_KEY"
        )
    return None if is_address(url) else "no address of a server: give one as in http://localhost:8000/v1"
