"""Addresses: whether a host answers, asked once and briefly before anything is downloaded from it; and what of an
address nobody else should read."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from cmmlib.errors import InputError

SECONDS = 3
REPOSITORY = "CMM_REPOSITORY_URL"


def has_secrets(url: str) -> bool:
    """Whether an address has parts in which keys and passwords are given: a user, a query, a fragment."""
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
        InputError: it has a part that may be a key, which would be written into both.
    """
    url = os.environ.get(REPOSITORY, "")
    if has_secrets(url):
        raise InputError(f"{REPOSITORY}: a user, a password or a query would stand in the book: leave it out")
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
