"""A script, a style and data as HTML for a page: it works from a file, offline, and asks for nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent


def widget_html(name: str, data: Mapping[str, Any], without: str) -> str:
    """A widget as HTML.

    Args:
        name: of its script `NAME.js`, which fills the element before it. The script puts text into pages as text, never
            as markup: names of classes and answers of a language model come from outside.
        data: what the script shows; finite numbers, strings, lists and mappings.
        without: what a reader is told whose browser runs no script.
    """
    carried = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    carried = carried.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    style, shared, script = (_part(part) for part in ("widgets.css", "shared.js", f"{name}.js"))
    return (
        f'<div class="cmm-widget cmm-{name}"><p class="cmm-without">{without}</p></div>\n'
        f'<script type="application/json" class="cmm-data-{name}">{carried}</script>\n'
        f"<style>{style}</style>\n<script>(() => {{\n{shared}\n{script}\n}})();</script>"
    )


def show_widget(name: str, data: Mapping[str, Any], without: str) -> None:
    """Show a widget under a cell."""
    from IPython.display import HTML, display

    display(HTML(widget_html(name, data, without)))


def base64_of(values: np.ndarray) -> str:
    """The bytes of an array, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).decode()


def _part(name: str) -> str:
    return (FOLDER / name).read_text("utf-8").strip()
