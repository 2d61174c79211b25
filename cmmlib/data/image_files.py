"""Which files are images, and which are left out: the rule for folders and shards, and the decoding of one image.

What Pillow reads without another program is read (PostScript needs one, so it is not). Parts of a path that operating
systems, archives and editors leave behind are never data, at any depth.
"""

from __future__ import annotations

import codecs
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cmmlib.data.reading import refused
from cmmlib.errors import InputError, one_line, some, why

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO"),
    *("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
JUNK = {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "lost+found"}
TOOLS = {".git", ".svn", ".hg", ".dvc", ".cache", ".ipynb_checkpoints", ".thumbnails", ".trash", ".trashes"}
HEIF = {".heic", ".heif", ".hif"}  # read where pillow-heif is installed
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
STARTS = (  # of files that take an image's place, as a download that failed leaves them
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the image with git lfs pull"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "XML, perhaps SVG, which is not read here"),
    (b"<svg", "SVG, which is not read here"),
    (b"%pdf", "a PDF"),
    (b"%!ps", "PostScript"),
    (b"pk\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed by gzip"),
)


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that Pillow reads here."""
    with suppress(ImportError):  # the extra `heif`
        import_module("pillow_heif").register_heif_opener()
    Image.init()
    # Pillow warns of large images, and refuses those of twice that size, which `decode` tells.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Endings of the files that Pillow reads here, in lower case, as `.png`."""
    known = {*formats(), *({"MPO"} if "JPEG" in formats() else ())}  # several JPEGs, which Pillow opens as one
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in known)


def is_image(path: str | Path) -> bool:
    """Whether the name ends as an image that is read here."""
    return os.path.splitext(path)[1].lower() in suffixes()


def is_junk(part: str) -> bool:
    """Whether a part of a path is never data: it starts with a dot, or systems and archives leave it behind."""
    return part.startswith(".") or part.lower() in JUNK


def is_hidden(part: str) -> bool:
    """Whether a part of a path is no data only because it begins with a dot: not what tools keep, as `.git`, nor what
    systems leave behind, as macOS's `._` beside a file and a disk's `.Trash-1000`.
    """
    return part.startswith(".") and not part.startswith("._") and not _is_of_a_tool(part.lower())


def _is_of_a_tool(part: str) -> bool:
    return part in TOOLS or part.startswith(".trash-")


def is_hidden_image(name: str) -> bool:
    """Whether a file is an image, and no data only because its name begins with a dot."""
    return is_hidden(name) and is_image(name)


def is_hidden_folder(folder: Path) -> bool:
    """Whether a folder is no data only because its name begins with a dot, and holds an image at any depth."""
    # what may not be read, as a system's own folders, is passed by
    return is_hidden(folder.name) and any(
        is_image(name) and not name.startswith("._") for _, _, files in os.walk(folder) for name in files
    )


def files_below(folder: Path) -> list[Path]:
    """Every file of a folder at any depth, in order, without junk; links that lead nowhere are among them, and so are
    images and folders of images that are no data only because their names begin with a dot.

    A folder is read once, also where links lead to it again.

    Raises:
        InputError: a folder that cannot be read.
    """
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read folder {error.filename}: {why(error)}")

    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from filter(is_hidden_folder, (Path(here, name) for name in folders))
        folders[:] = [name for name in folders if not is_junk(name)]
        yield from (Path(here, name) for name in files if not is_junk(name) or is_hidden_image(name))


def images_and_rest(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images of a folder at any depth, and the files that are left out, with folders whose names hide images."""
    files = files_below(folder)
    images = [path for path in files if not is_junk(path.name) and is_image(path) and path.is_file()]
    chosen = set(images)
    return images, [path for path in files if path not in chosen]


def left_out(rest: Iterable[Path]) -> list[str]:
    """Lines on what was found and is not used: links that lead nowhere, what is no regular file (a pipe, a device), and
    images and folders of images under a dot, by name, each once, and other files, by their endings.
    """
    files, lines = {*rest}, []
    dangling = {path for path in files if path.is_symlink() and not path.exists()}
    folders = {path for path in files - dangling if is_hidden(path.name) and path.is_dir()}
    odd = {path for path in files - dangling - folders if not path.is_file()}
    hidden = {path for path in files - dangling - folders - odd if is_hidden_image(path.name)}
    kinds = {
        "links that lead nowhere are": dangling,
        "what is no regular file is": odd,
        "images whose names begin with a dot are": hidden,
        "folders of images whose names begin with a dot are": folders,
    }
    for what, paths in kinds.items():
        names = sorted({path.name for path in paths})
        lines += [f"{what} left out: {some(names)}"] if names else []
    return lines + by_ending(path.name for path in sorted(files - dangling - folders - odd - hidden))


def by_ending(names: Iterable[str]) -> list[str]:
    """One line that counts files that are left out by their endings, or none."""
    counts = Counter(os.path.splitext(name)[1].lower() or "without an ending" for name in names)
    if not counts:
        return []
    listed = ", ".join(f"{n} {suffix}" for suffix, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    remedy = " (pip install 'cmmlib[heif]' to read them)" if HEIF & counts.keys() - suffixes() else ""
    return [f"files left out, no images that are read here: {listed}{remedy}"]


def check_utf8(paths: Iterable[Path]) -> None:
    """Names go into tables and JSON, so they must be text.

    Raises:
        InputError: the first name that is not UTF-8, as bytes.
    """
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            name = next(os.fsencode(part) for part in path.parts if not _is_text(part))
            with suppress(UnicodeDecodeError):
                told = f"Python takes file names for {sys.getfilesystemencoding()} here: set PYTHONUTF8=1"
                raise InputError(f"the name {name.decode()!a} is UTF-8, and {told}") from None
            raise InputError(f"the name {name!r} is not UTF-8 text: rename it") from None


def _is_text(part: str) -> bool:
    """Whether a part of a path is text; bytes that Python could not read stand in it as halves of a character."""
    return not any("\ud800" <= letter <= "\udfff" for letter in part)


def decode(file: Path | BytesIO, called: str) -> Image.Image:
    """The image of a file, RGB.

    Raises:
        InputError: what is no image, a damaged one, one of too many pixels, or one whose numbers cannot be told to be a
            picture's; it says what the image is called. Whatever a decoder raises is an image that cannot be read.
    """
    try:
        with Image.open(file, formats=formats()) as image:
            image.load()
            return _rgb(image)
    except Image.DecompressionBombError:  # a healthy image perhaps, or a small file that would fill the memory
        most = f"{2 * Image.MAX_IMAGE_PIXELS:,} pixels, the most that Pillow reads"  # type: ignore[operator]
        raise InputError(f"cannot read image {called}: it has more than {most}; scale it down or remove it") from None
    except Exception as error:  # decoders raise anything on damaged files
        if cause := refused(error):
            raise InputError(f"cannot read image {called}: {cause}") from None
        reason = _not_an_image(file) if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise InputError(f"cannot read image {called}: {reason}; repair or remove it") from None


def _not_an_image(file: Path | BytesIO) -> str:
    """What a file is that no decoder knows, where its first bytes tell."""
    head = _head(file)
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return "it is a HEIF image, whatever its name (pip install 'cmmlib[heif]' to read it)"
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((f"it is {what}" for start, what in STARTS if begins.startswith(start)), "not an image")


def _head(file: Path | BytesIO, size: int = 64) -> bytes:
    if isinstance(file, BytesIO):
        return file.getvalue()[:size]
    with suppress(OSError), file.open("rb") as opened:
        return opened.read(size)
    return b"unreadable"


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    # `convert("RGB")` alone gives the same, but warns about the transparency of some palettes
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 or 32 bits, of which 65535 is white, or floats from 0 to 1, scaled to 0..255.

    Raises:
        ValueError: other numbers, for which no scale is known; whole ones up to 255, which may be of 8 bits.
    """
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if not 0 <= low <= high <= 1:  # NaN too
            raise ValueError(f"it holds floats from {low:g} to {high:g}, expected 0 to 1")
        return np.rint(255 * values).astype(np.uint8)
    if 1 < high <= 255:
        bits = 8 * values.dtype.itemsize
        raise ValueError(f"it holds {bits}-bit numbers up to {high:g}, and does not say whether 255 or 65535 is white")
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"it holds numbers from {low:g} to {high:g}, expected 0 to 65535")
    return np.rint(values / 257.0).astype(np.uint8)
