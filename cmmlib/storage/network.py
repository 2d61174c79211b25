"""Whether a host answers: asked once and briefly, before anything is downloaded from it."""

from __future__ import annotations

import urllib.error
import urllib.request

SECONDS = 3


def host_responds(url: str) -> bool:
    """Whether anything answers there, be it with an error page."""
    try:
        urllib.request.urlopen(url, timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
