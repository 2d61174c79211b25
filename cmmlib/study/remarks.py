"""Lines for whoever runs a study, on what is odd about its model, its names and its templates."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmmlib.data.images import ImageSet
from cmmlib.data.labels import empty_classes
from cmmlib.errors import some
from cmmlib.functional._kernels.processor import NO_BF16, has_native_bf16
from cmmlib.storage.text_files import repeated
from cmmlib.study.study import Study
from cmmlib.texts.templates import fill, is_marked, is_quoted
from cmmlib.texts.transcripts import knowing_transcript

if TYPE_CHECKING:
    from cmmlib.models.backbones import Backbone

UNSEEN = ("Cf", "Cc")  # Unicode's kinds of characters: format and control
JOINERS = "\u200c\u200d"
USUAL_SCALES = (5.0, 200.0)  # of trained models, and room
NUMBERED = re.compile(r"\s*(?:\d+|n\d{8})[\s._:;,)-]+[^\W\d_]")  # as "001.Albatross", "n02085620-Chihuahua"
MOST_OF = 0.9  # of a transcript's classes: whoever has as many has that data set


def of_model(study: Study, backbone: Backbone | None) -> list[str]:
    """Lines on weights that lie beside the model's, and on one that runs in bfloat16 on a processor that has none."""
    if backbone is None:
        return []
    slow = study.precision == "bf16" and backbone.device.type == "cpu" and not has_native_bf16()
    return [*backbone.checkpoint.remarks, *([f"precision: {NO_BF16}"] if slow else [])]


def odd_scale(logit_scale: float) -> list[str]:
    """A line on a logit scale unlike those of trained models, where it is one."""
    low, high = USUAL_SCALES
    if low <= logit_scale <= high:
        return []
    told = f"the model's logit scale is {logit_scale:.3g}, and that of trained ones about 10 to 120"
    return [f"{told}: are its weights whole?"]


def odd_names(classnames: Sequence[str]) -> list[str]:
    """Lines on names that stand for several classes, on names with characters that nobody sees, on names in quotation
    marks, on names that are numbers, and on those that begin with one.
    """
    counts = Counter(_as_read(name) for name in classnames)
    shared = [repr(name) for name, n in counts.items() if n > 1]
    lines = [f"names that stand for more than one class: {some(shared)}"] if shared else []
    if unseen := [ascii(name) for name in classnames if any(map(_is_unseen, name))]:
        lines.append(f"class names with characters that nobody sees, which are read as part of them: {some(unseen)}")
    if all(name.strip().isdecimal() for name in classnames):
        lines.append(
            f"class names are numbers ({some(list(classnames))}): where they stand for names, give --class-names FILE"
        )
    if all(map(NUMBERED.match, classnames)):
        told = f"all class names begin with a number or a WordNet id ({_begun(classnames)}), which every prompt repeats"
        lines.append(f"{told}: where these are no part of them, give --class-names FILE with the names alone")
    return [*lines, *_quoted("class names", classnames)]


def guessed_domain(study: Study, name: str, classnames: Sequence[str]) -> list[str]:
    """A line where the domain in the questions, and with it the recorded descriptions, follow from class names that are
    few of those which a shipped transcript knows.

    Args:
        name: of the data set; one that has a word of the transcript's is the set that this is about, or a part of it.
    """
    known = None if study.domain else knowing_transcript(classnames)
    if known is None or len(classnames) >= MOST_OF * known.n_classes or _words(known.name) & _words(name):
        return []
    told = f"all class names are among the {known.n_classes} of {known.name}, so that descriptions are of"
    return [f"{told} {known.domain!r}: name what the images are with --domain, as in --domain photographs"]


def _words(name: str) -> set[str]:
    return {*re.findall(r"[a-z0-9]+", name.casefold())}


def _as_read(name: str) -> str:
    """A name as a reader takes it: without case, without what is not seen, one space for several."""
    plain = unicodedata.normalize("NFC", name).casefold()
    seen = (" " if x.isspace() else x for x in plain if x.isspace() or unicodedata.category(x) not in UNSEEN)
    return " ".join("".join(seen).split())


def _is_unseen(letter: str) -> bool:
    """Whether a character is not seen and no script needs it, as several need the two joiners of letters."""
    return unicodedata.category(letter) in UNSEEN and letter not in JOINERS


def odd_texts(backbone: Backbone, study: Study, templates: Sequence[str], classnames: Sequence[str]) -> list[str]:
    """Lines on templates in quotation marks, with the mark of a list or given twice, and on texts that are longer than
    the text tower reads.
    """
    shortest = min(classnames, key=len)
    long = [text for text in (study.base_template, *templates) if not backbone.fits_context(fill(text, shortest))]
    pool = (study.base_template, *templates)
    lines = _quoted("templates", pool)
    if twice := repeated(templates):
        lines.append(f"templates that are there more than once, and count as often: {_begun(twice)}")
    if marked := [text for text in pool if is_marked(text)]:
        lines.append(f"templates that begin with the mark of a list, which is read as part of them: {_begun(marked)}")
    lines += [f"templates longer than the text tower reads, and cut there: {_begun(long)}"] if long else []
    if study.base_template in long:
        return lines
    cut = [name for name in classnames if not backbone.fits_context(fill(study.base_template, name))]
    return lines + ([f"class names longer than the text tower reads, and cut there: {_begun(cut)}"] if cut else [])


def _quoted(what: str, texts: Sequence[str]) -> list[str]:
    quoted = [text for text in dict.fromkeys(texts) if is_quoted(text)]
    return [f"{what} in quotation marks, which are read as part of them: {_begun(quoted)}"] if quoted else []


def _begun(texts: Sequence[str]) -> str:
    return some([repr(text[:60]) for text in texts])


def emptied_classes(before: ImageSet, after: ImageSet) -> list[str]:
    """A line on classes of which no image can be read, where there are any."""
    if before.labels is None or after.labels is None or len(before) == len(after):
        return []
    n_classes = len(before.classnames)
    were_empty = empty_classes(before.labels, n_classes)
    lost = [before.classnames[c] for c in empty_classes(after.labels, n_classes) if c not in were_empty]
    return [f"classes of which no image can be read, which stay classes: {some(lost)}"] if lost else []
