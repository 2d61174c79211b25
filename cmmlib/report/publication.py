"""What a book says of itself to search engines and to sites that link to it, and its page for wrong addresses.

Descriptions and a picture for every page; addresses only where the book's own is known, since they must be whole.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

PICTURE = "real_and_own.png"  # of a run's figures; the first page shows the same
PICTURE_SHOWS = "Accuracy of every class, sorted from worst to best: a good average with a bad tail"
NOT_FOUND = "404"


def described(config: dict[str, Any], address: str) -> dict[str, Any]:
    """A configuration of Jupyter Book, with the extensions that need the book's address where there is one.

    Args:
        address: of the published book, with a slash at its end; or nothing.
    """
    sphinx = config.setdefault("sphinx", {})
    settings = sphinx.setdefault("config", {})
    settings |= {"ogp_site_url": address, "ogp_image": f"_static/{PICTURE}", "ogp_social_cards": {"enable": False}}
    settings |= {"ogp_site_name": config["title"], "ogp_image_alt": PICTURE_SHOWS}
    extensions = ["sphinxext.opengraph"]
    if address:
        extensions += ["sphinx_sitemap", "notfound.extension"]
        config.setdefault("html", {})["baseurl"] = address
        root = urlsplit(address).path
        settings |= {"sitemap_url_scheme": "{link}", "sitemap_excludes": ["search.html", f"{NOT_FOUND}.html"]}
        settings |= {"notfound_urls_prefix": root, "notfound_context": _not_found(root)}
    sphinx["extra_extensions"] = [*sphinx.get("extra_extensions", []), *extensions]
    return config


def _not_found(root: str) -> dict[str, str]:
    home = f'<a href="{root}index.html">The first page</a> lists what there is'
    body = f'<h1>No page has this address</h1>\n<p>{home}, and the search is <a href="{root}search.html">here</a>.</p>'
    return {"title": "No page has this address", "body": body}
