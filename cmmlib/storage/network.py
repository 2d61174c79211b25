"""Whether a host answers: asked once and briefly, before anything is downloaded from it."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException

SECONDS = 3


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
