"""What a class without a network needs, in one zip file: the book with its slides, and the notebooks for students."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from string import Template

from cmmlib.errors import InputError
from cmmlib.report import book, student_notebooks
from cmmlib.report.slides import FILE as SLIDES
from cmmlib.report.slides import LESSON
from cmmlib.storage import own_folders
from cmmlib.storage.cache import whole_file

ARCHIVE = "classroom.zip"
DOWNLOADS = "_downloads"  # folder of the built book with the files that its pages offer
FIGURES = "_figures.zip"  # a chapter's figures as files, which are large, and which its page shows
_FIGURES = re.compile(rf'(?: · )?<a\b[^>]*{FIGURES}"[^>]*>.*?</a>', re.S)
GUIDE = "marking-guide"  # id of a section for teachers
READ_ME = Template("""\
CLIP's worst categories: for a class without a network
======================================================

book/index.html             the book; open it in any browser, from this folder
book/_static/$lesson    slides of the lesson; the arrow keys turn them, the key a opens answers
book/_static/$slides    slides of all chapters
notebooks/                  the chapters with an answer cell and a check for each exercise

The book and the slides need nothing but a browser. The notebooks need Python 3.11 to 3.13 and the package
cmmlib ($version). They come without figures and numbers: write each prediction down, then run the cells below it.

1. Once, on a computer with a network, the same system and the same Python, in a clone of the project:

       pip wheel --wheel-dir wheels -c constraints.txt '.[book]'

   On Linux this takes torch with CUDA, which is large; --extra-index-url with the index of CPU wheels that pytorch.org
   names takes the smaller one.

2. Copy the folder wheels/ to each computer of the class, for example on a USB stick, and install from it:

       python -m venv venv
       venv/bin/pip install --no-index --find-links wheels 'cmmlib[book]'     (Windows: venv\\Scripts\\pip)

3. Once, before the lesson: run a notebook. The first time, the cell with open_run may take minutes: images are drawn
   or read, and embedded. The embeddings are kept, so afterwards it takes seconds.

4. Start Jupyter in this folder, and open a notebook:

       venv/bin/jupyter lab notebooks
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
    student_notebooks.write(run, out, data, partial(_pack, pages))
    return out / ARCHIVE


def _pack(pages: Path, folder: Path) -> None:
    """Write the zip file into a folder of notebooks for students; `pages` is the built book."""
    with whole_file(folder / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        read_me = READ_ME.substitute(lesson=LESSON, slides=SLIDES, version=version("cmmlib"))
        file.writestr(student_notebooks.entry("README.txt"), read_me)
        notebooks = list(_files(folder, "notebooks"))
        twice = {student_notebooks.ARCHIVE, *(path.name for path, _ in notebooks if path.suffix == ".ipynb")}
        for path, name in notebooks:
            _add(file, path, name)
        for path, name in _files(pages, "book"):
            if path.suffix == ".html":
                file.writestr(student_notebooks.entry(name), for_class(path.read_text("utf-8"), twice))
            elif path.parent.parent.name != DOWNLOADS or not (path.name in twice or path.name.endswith(FIGURES)):
                _add(file, path, name)


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    """A file without its time, which may be one that zip files cannot hold; copied in parts, as data are large."""
    with path.open("rb") as source, archive.open(student_notebooks.entry(name), "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target)


def for_class(page: str, notebooks: Collection[str]) -> str:
    """A page of the book for students: notebooks are those beside the book; marking guides and figure files go.

    Args:
        notebooks: names of files that the page may offer and that lie in the folder notebooks/, or are all of it.
    """

    def link(found: re.Match[str]) -> str:
        up, name = found.groups()
        name = "" if name == student_notebooks.ARCHIVE else name
        return f'href="{up}../notebooks/{name}"' if found[2] in notebooks else found[0]

    page = _FIGURES.sub("", page)
    page = re.sub(rf'href="((?:\.\./)*){DOWNLOADS}/\w+/([^"/]+)"', link, page)
    if f'id="{GUIDE}"' not in page:
        return page
    from bs4 import BeautifulSoup

    parsed = BeautifulSoup(page, "html.parser")
    for element in parsed.select(f'section#{GUIDE}, li:has(> a[href="#{GUIDE}"])'):
        element.decompose()
    return str(parsed)


def _files(root: Path, place: str) -> Iterator[tuple[Path, str]]:
    """Files and their names in the archive: neither marks nor archives nor solutions."""
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if (
            path.is_file()
            and student_notebooks.is_for_students(inside)
            and inside.as_posix() not in (ARCHIVE, student_notebooks.ARCHIVE)
        ):
            yield path, f"{place}/{inside.as_posix()}"
