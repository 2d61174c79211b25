"""Jupyter Book over book/ and the executed chapters of one or more runs; what comes out is checked."""

from __future__ import annotations

import errno
import html
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cmmlib.errors import ChapterError, InputError, one_line, some
from cmmlib.report import sweep_pages, web_files, web_pages
from cmmlib.report.chapters import PACKAGE, belongs, chapters, code_files, note, note_unknown, read_notebook, source
from cmmlib.report.page_values import made_with, page_values
from cmmlib.report.placed_chapters import cards
from cmmlib.report.staging import FIGURES, WORLD, add_part, keep_blocks, stage
from cmmlib.storage import own_folders
from cmmlib.storage.cache import digest, file_digests
from cmmlib.storage.network import book_url, repository_url
from cmmlib.storage.text_files import require_writable
from cmmlib.study.made_files import command, require_whole
from cmmlib.study.run_files import MANIFEST, SWEEP, read_run


def build(runs: Sequence[Path], out: Path = Path("_build"), flag: str = "--out") -> Path:
    """Build the HTML of one or more runs, or of a sweep, and return its index.html.

    The first run owns the main chapters; other runs have chapters of their own, those of a sweep a page each.

    The pages are staged in `out`/book, built in `out`/work and moved into the place of `out`/html when every check has
    passed. All three are emptied, so they are refused where this program did not make what they hold; `flag` is what
    names `out`, for that line.

    Raises:
        InputError: no run, a damaged one, one without its chapters, or two of one name; an `out` that overlaps a run or
            the sources, or whose three folders are somebody else's. Nothing has been touched then.
        OSError: a full disk, a folder that cannot be written.
        ChapterError: Jupyter Book warned or failed, or a page or number is missing.
    """
    given = [Path(os.path.realpath(run)) for run in runs] or [_newest_run()]
    sweep = _sweep(given)
    folders = sweep_pages.runs_of(sweep) if sweep else given
    for folder in folders:
        _require_run(folder)
    _require_own_names(folders)
    manifest, results = read_run(folders[0])
    _require_pages(folders[0], manifest)
    values = _quoted(results, manifest, folders[0])
    _claim(out, [*folders, *given], flag)
    for folder in folders:
        note_unknown(folder)
    stamp, html = _build_stamp(given), out / "html"
    index = html / "index.html"
    if index.exists() and own_folders.noted(html) == stamp:
        note("book: up to date")
        return index
    if index.exists():
        note(f"book: the one in {out} was made of other runs, files or settings: a new one takes its place")
    for part in PARTS:
        own_folders.require_ours(out / part)  # before anything is made
    staged = out / "book"
    with own_folders.filled(staged, always_listed=False) as place:
        stage(folders[:1] if sweep else folders, place, manifest, values)
        if sweep:
            add_part(place, "The sweep", sweep_pages.write(sweep, folders, place))
    page_root = _jupyter_book(staged, out / "work", [*(folder / FIGURES for folder in folders), *given])
    _verify(staged, page_root)
    own_folders.mark(page_root, stamp)
    own_folders.list_made(page_root)
    own_folders.put(page_root, html)
    own_folders.list_made(out / "work")
    return index


def _sweep(folders: Sequence[Path]) -> Path | None:
    """The folder of a sweep, if it is what was named."""
    sweeps = [folder for folder in folders if (folder / SWEEP).is_file()]
    if sweeps and len(folders) > 1:
        raise InputError(f"{sweeps[0].name} is a sweep: name it alone, or runs out of its folder runs/")
    return sweeps[0] if sweeps else None


def _require_run(folder: Path) -> None:
    if (folder / MANIFEST).is_file():
        require_whole(folder)
    if not (folder / MANIFEST).is_file() or not (folder / "chapters" / "01_phenomenon.ipynb").is_file():
        raise InputError(f"{folder} is no finished run: it lacks {MANIFEST} or chapter 01; run `cmm run` first")


def _require_own_names(folders: Sequence[Path]) -> None:
    """Refuse two runs of one name, by which the book calls them and their folders."""
    name, times = Counter(folder.name for folder in folders).most_common(1)[0]
    if times > 1:
        same = [folder for folder in folders if folder.name == name]
        remedy = "name it once" if len(set(same)) == 1 else "rename one folder"
        raise InputError(f"two runs are called {name}, {same[0]} and {same[1]}: {remedy}")


def _require_pages(run: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a first run without what the book's pages quote and show."""
    wanted = [path for path in chapters() if belongs(path, manifest["conditions"])]
    lacking = [path.stem for path in wanted if not (run / "chapters" / path.name).is_file()]
    if lacking:
        raise InputError(f"{run.name} lacks {', '.join(lacking)}, which the book's pages quote: run it without --only")
    lost = [name for name in _shown_figures(run, manifest) if not (run / name).is_file()]
    if lost:  # a manifest of an earlier version lists no figures
        remedy = f"the study's own command heals it: {command(dict(manifest), run)}"
        raise InputError(f"{run} is damaged, as {some(lost)} {'shows' if len(lost) == 1 else 'show'}: {remedy}")


def _shown_figures(run: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The run's figures that the book's pages show, by their paths within the run."""
    pages = [path for path in sorted(source("book").glob("*.md")) if path.stem != WORLD or cards(run)]
    texts = [keep_blocks(path.read_text("utf-8"), manifest["conditions"]) for path in pages]
    return [name for text in texts for name in re.findall(rf"{FIGURES}/\w+\.svg", text)]


PARTS = ("book", "work", "html")  # of the folder that receives a book


def _claim(out: Path, runs: Sequence[Path], flag: str = "--out") -> None:
    """Refuse to build where something would be lost. A book of an earlier version gets the marks that it lacks."""
    place = Path(os.path.realpath(out))
    for kept in (source("book"), source("notebooks"), PACKAGE, *runs):
        kept = kept.resolve()
        if place.is_relative_to(kept) or kept.is_relative_to(place):
            raise InputError(
                f"{flag}: {out} overlaps {kept}, which the book is made from: choose another, such as _build"
            )
    if out.exists() and not out.is_dir():
        raise InputError(f"{flag}: {out} is a file: choose a folder")
    earlier = _is_earlier_book(out)
    unmarked = [part for part in (out / name for name in PARTS) if not own_folders.is_own(part)]
    for part in unmarked:
        if not earlier or part.is_symlink() or not part.is_dir():
            raise InputError(f"{flag}: {part} was not made by `cmm book`: move it away, or choose another folder")
    require_writable(out / PARTS[0])
    for part in unmarked:
        own_folders.mark(part)
    if earlier:
        (out / "stamp").unlink()


def _is_earlier_book(out: Path) -> bool:
    """Whether a version of this program before the marks built a book here: it left a SHA-256 in a file `stamp`."""
    seal, index = out / "stamp", out / "html" / "index.html"
    if not (seal.is_file() and index.is_file()):
        return False
    return re.fullmatch("[0-9a-f]{64}", seal.read_text(errors="replace")) is not None


def _newest_run() -> Path:
    found = sorted(Path("runs").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError("no run in runs/: give a run folder, or run `cmm run --dataset ...` first")
    return found[-1].parent.resolve()


def _build_stamp(folders: Sequence[Path]) -> str:
    pages = [p for p in sorted(source("book").rglob("*")) if p.is_file()]
    files = [*pages, source("_config.yml"), *(p for f in folders for p in sorted(f.rglob("*")) if p.is_file())]
    return digest(
        file_digests(source("book"), files), file_digests(PACKAGE, code_files()), repository_url(), book_url()
    )


def _quoted(results: Mapping[str, Any], manifest: Mapping[str, Any], run: Path) -> dict[str, str]:
    """What the book's pages quote of a run.

    Raises:
        InputError: a part of results.json or the manifest lacks a key, or holds something else than a run wrote there.
    """
    values: dict[str, str] = {}
    for file, read in (("results.json", partial(page_values, results)), (MANIFEST, partial(made_with, manifest))):
        try:
            values |= read()
        except Exception as error:  # of whatever was edited; the error names the key or the value
            told = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"{run.name}: {file} is not as a run writes it ({told}): run `cmm run` again") from None
    return values


# This interpreter's own, whatever `jupyter-book` comes first on PATH.
JUPYTER_BOOK = "import sys; from jupyter_book.cli.main import main; sys.argv[0] = 'jupyter-book'; main()"


def _jupyter_book(staged: Path, work: Path, figures: Sequence[Path] = ()) -> Path:
    own_folders.emptied(work)
    arguments = ["build", str(staged), "--path-output", str(work), "-W", "--keep-going", "--quiet"]
    command = [sys.executable, "-P", "-c", JUPYTER_BOOK, *arguments]
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # pages are UTF-8 anywhere
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment)
    pages = work / "_build" / "html"
    if done.returncode or not (pages / "index.html").is_file():
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)  # colours
        if f"[Errno {errno.ENOSPC}]" in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work))
        lines = [line for line in said.splitlines() if re.search("WARNING|ERROR|rror:", line)]
        raise ChapterError("the book has warnings or errors:\n" + "\n".join(lines or [said.strip()[-2000:]]))
    web_pages.finish(pages, figures)
    web_files.lighten(pages)
    return pages


def _verify(staged: Path, pages: Path) -> None:
    """Every page exists, and every sentence that a chapter's code says stands on it."""
    for path in sorted([*staged.rglob("*.md"), *(staged / "chapters").rglob("*.ipynb")]):
        page = (pages / path.relative_to(staged)).with_suffix(".html")
        if not page.is_file():
            raise ChapterError(f"the book has no page {page.relative_to(pages)}")
        text = _even(_text(page.read_text(encoding="utf-8")))
        for sentence in _said(path) if path.suffix == ".ipynb" else ():
            if _even(sentence) not in text:
                raise ChapterError(f"page {page.name} lacks the sentence {sentence!r}")


def _said(chapter: Path) -> list[str]:
    """The text of every Markdown output of a chapter."""
    from markdown_it import MarkdownIt

    outputs = [o for cell in read_notebook(chapter).cells for o in cell.get("outputs", [])]
    said = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    return [_text(MarkdownIt("commonmark").render(text)) for text in said]


def _text(page: str) -> str:
    """The words of some HTML."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def _even(text: str) -> str:
    """Text without what typography changes: space, quotes, dashes, dots."""
    text = re.sub("[\u2018\u2019]", "'", re.sub("[\u201c\u201d]", '"', text))
    return " ".join(re.sub("-{2,3}|[\u2013\u2014]", "-", text.replace("\u2026", "...")).split())
