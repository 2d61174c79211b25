"""Files of the built book, made lighter: what no page loads goes, icons and pictures in figures become small."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

from PIL import Image

# Of what Sphinx and its extensions copy: sources, maps for debuggers, programs and fonts that no page asks for.
UNUSED = ("*.map", "mathjax", "sphinx-thebe.*", "fontawesome.js*", "fa-brands-*", "fa-regular-*", "fa-solid-*.woff2")
ICONS = "vendor/fontawesome/webfonts/fa-solid-900.ttf"
STYLE = "styles/pydata-sphinx-theme.css"
ICON_FONT = f'@font-face{{font-display:block;font-family:"Font Awesome 6 Free";font-weight:900;src:url(../{ICONS})}}'
_ICON_RULE = re.compile(r'((?:\.fa-[\w-]+:{1,2}before,?)+)\{content:"\\[0-9a-f]+"\}')
_ICON_FONTS = re.compile(r"@font-face\{[^}]*Font Awesome[^}]*\}")
_PRIVATE = re.compile(
    "[\ue000-\uf8ff]"
)  # where icons are among the letters; a style sheet has them as they are, or escaped
_PICTURE = re.compile(r"data:image/png;base64,([^\"]+)")
LARGE = 2000  # characters of an embedded picture that are worth it; smaller ones are keys and patterns
QUALITY = 90


def lighten(pages: Path) -> None:
    """Drop and shrink files of a built book where they lie."""
    _prune(pages)
    _keep_used_icons(pages)
    for figure in (pages / "_images").glob("*.svg"):
        figure.write_text(with_light_pictures(figure.read_text("utf-8")), "utf-8")


def _prune(pages: Path) -> None:
    shutil.rmtree(pages / "_sources", ignore_errors=True)
    for pattern in UNUSED:
        for path in [*(pages / "_static").rglob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _keep_used_icons(pages: Path) -> None:
    """The theme's font has 1,400 icons and its style a rule for each; pages, scripts and styles use some thirty."""
    static = pages / "_static"
    files = [*pages.rglob("*.html"), *(static / "scripts").glob("*.js")]
    named = {name for file in files for name in re.findall(r"\bfa-[a-z0-9-]+", file.read_text("utf-8"))}
    style = (static / STYLE).read_text("utf-8")
    style = _ICON_RULE.sub(lambda rule: rule[0] if named & {*re.findall(r"fa-[\w-]+", rule[1])} else "", style)
    (static / STYLE).write_text(_ICON_FONTS.sub("", style) + ICON_FONT, "utf-8")
    styles = "".join(file.read_text("utf-8") for file in static.rglob("*.css"))
    drawn = {chr(int(code, 16)) for code in re.findall(r"\\([ef][0-9a-f]{3})\b", styles)} | {*_PRIVATE.findall(styles)}
    _subset(static / ICONS, "".join(drawn))


def _subset(font: Path, letters: str) -> None:
    from fontTools import subset

    options = subset.Options(hinting=False)
    with subset.load_font(font, options) as whole:
        subsetter = subset.Subsetter(options)
        subsetter.populate(text=letters)
        subsetter.subset(whole)
        subset.save_font(whole, font, options)


def with_light_pictures(svg: str) -> str:
    """A figure whose embedded pictures are WebP: a tenth of the PNG, and nobody sees it."""
    return _PICTURE.sub(lambda found: _webp(found[1]) if len(found[1]) > LARGE else found[0], svg)


def _webp(png: str) -> str:
    data = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture.save(data, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
