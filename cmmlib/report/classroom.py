"""What a class without a network needs, in one zip file: the book with its slides, and the notebooks for students."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from string import Template

from cmmlib.errors import InputError
from cmmlib.report import book, student_notebooks
from cmmlib.report.slides import FILE as SLIDES
from cmmlib.storage import own_folders
from cmmlib.storage.cache import whole_file

ARCHIVE = "classroom.zip"
READ_ME = Template("""\
CLIP's worst categories: for a class without a network
======================================================

book/index.html             the book; open it in any browser, from this folder
book/_static/$slides    its slides; the arrow keys left and right turn them
notebooks/                  the chapters with an answer cell and a check for each exercise

The book and the slides need nothing but a browser. The notebooks need Python 3.11 to 3.13 and the package
cmmlib ($version).

1. Once, on a computer with a network, the same system and the same Python, in a clone of the project:

       pip wheel --wheel-dir wheels -c constraints.txt '.[book]'

2. Copy the folder wheels/ to each computer of the class, for example on a USB stick, and install from it:

       python -m venv cmm
       cmm/bin/pip install --no-index --find-links wheels 'cmmlib[book]'     (Windows: cmm\\Scripts\\pip)

3. Start Jupyter in this folder, open a notebook and run all cells:

       cmm/bin/jupyter lab notebooks
""")


def write(run: Path, out: Path, built: Path = Path("_build"), data: Sequence[Path] = ()) -> Path:
    """Write the zip file of a finished run into a folder of its own, with the solutions beside it, and return its path.

    Args:
        built: where its book is, or is to be built: as `book.build`.
        data: as `student_notebooks.write`.

    Raises:
        InputError: as `book.build` and `student_notebooks.write`; an `out` that overlaps the book.
        ChapterError: the book cannot be built.
        OSError: a full disk, a folder that cannot be written.
    """
    if own_folders.overlap(out, built):
        raise InputError(f"--out: {out} overlaps {built}, where the book is: choose a folder apart from it")
    student_notebooks.checked(run, out, data)  # before the book, which takes a minute
    pages = book.build([run], built, "--book").parent
    student_notebooks.write(run, out, data)
    archive = out / ARCHIVE
    with whole_file(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README.txt", READ_ME.substitute(slides=SLIDES, version=version("cmmlib")))
        for path, name in (*_files(pages, "book"), *_files(out, "notebooks")):
            file.write(path, name)
    own_folders.list_made(out)
    return archive


def _files(root: Path, place: str) -> Iterator[tuple[Path, str]]:
    """Files and their names in the archive: neither marks nor archives nor solutions."""
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        hidden = path.name.startswith(".") or inside.parts[0] == student_notebooks.SOLUTIONS
        if path.is_file() and not hidden and inside.as_posix() not in (ARCHIVE, student_notebooks.ARCHIVE):
            yield path, f"{place}/{inside.as_posix()}"
