"""Addresses: whether a host answers, asked once and briefly before anything is downloaded from it; and what of an
address nobody else should read."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from cmmlib.errors import InputError, without_keys

SECONDS = 3
REPOSITORY = "CMM_REPOSITORY_URL"
BOOK = "CMM_BOOK_URL"
EXAMPLES = {REPOSITORY: "https://github.com/OWNER/NAME", BOOK: "https://example.org/book/"}
# An address without what ends a text of code, a link of Markdown or an attribute; brackets are of a host in numbers.
_PLAIN = re.compile(r"https?://(?:\[[\da-fA-F:.]+\])?[^\s\"'`<>()\[\]{}\\|^]*")
_ON_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")


def has_secrets(url: str) -> bool:
    """Whether an address has parts in which keys and passwords are given (a user, a query, a fragment), or a key in its
    path, as gateways have it.

    >>> [has_secrets(f"https://a.b/{part}v1") for part in ("", "sk-SECRETKEY1234567890abc/", "openai-gateway-2024/")]
    [False, True, False]
    """
    if without_keys(url) != url:
        return True
    try:
        parts = urlsplit(url)
    except ValueError:
        return "@" in url
    return bool("@" in parts.netloc or parts.query or parts.fragment)


def is_address(url: str) -> bool:
    """Whether a text is the address of a server: http or https, a host, and a port that can be, if any.

    >>> [is_address(url) for url in ("http://[::1]:80/v1", "https://a.b", "file:///a", "http://[::1", "http://a:99999")]
    [True, True, False, False, False]
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return known and url.isprintable() and " " not in url


def repository_url() -> str:
    """The address of the repository that the environment names for the book and the notebooks, or an empty text.

    Raises:
        InputError: it is no address, or has a part that may be a key, which would be written into both.
    """
    return _named_by(REPOSITORY)


def book_url() -> str:
    """The address of the published book, with a slash at its end, or an empty text where nobody can know it.

    The environment's CMM_BOOK_URL; else that of GitHub Pages, where the repository is GitHub's.

    Raises:
        InputError: one of the two has a part that may be a key, or CMM_BOOK_URL is no address.
    """
    url, repository = _named_by(BOOK), _ON_GITHUB.fullmatch(_named_by(REPOSITORY))
    if url:
        return url.rstrip("/") + "/"
    if not repository:
        return ""
    host = f"{repository[1].lower()}.github.io"
    return f"https://{host}/" if repository[2].lower() == host else f"https://{host}/{repository[2]}/"


def _named_by(variable: str) -> str:
    url = os.environ.get(variable, "")
    if has_secrets(url):
        raise InputError(
            f"{variable}: a user, a password or a query would stand in the book, and so would a key: leave it out"
        )
    if url and (not is_address(url) or not _PLAIN.fullmatch(url)):
        raise InputError(f"{variable}: {url!r} is no address such as {EXAMPLES[variable]}")
    return url


def host_responds(url: str) -> bool:
    """Whether anything there speaks HTTP, be it with an error page; not for what is no address of the web."""
    if not url.lower().startswith(("http://", "https://")):
        return False
    try:
        urllib.request.urlopen(url, timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, HTTPException, ValueError):  # no host, another protocol, no address
        return False
    return True
