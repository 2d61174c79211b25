"""What a chapter shows under its cells: sentences, tables, and figures that are also files.

A number in prose is computed, never typed. Text that came from outside (class names, file names) is escaped
here, once.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from cmmlib.blazon.training.model import NAME as BLAZON_MINI
from cmmlib.errors import some, tell
from cmmlib.report.captions import caption_of
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import MISSING, decimal, percent_number, points, points_interval, spelt
from cmmlib.report.numbering import CAPTION, TABLE_TITLE
from cmmlib.report.titles import title_of, titled
from cmmlib.storage.cache import whole_file
from cmmlib.study.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST_COLUMN, PAGE_WIDTH = 32, 92  # characters of a table's text: an unbroken first column at most, and the page
_NUMBERS = re.compile(r"(?:n/a|points|to|%|[+-]?[\d.,]+| )+")  # a cell of nothing but numbers and their units


def evidence_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `evaluation.claims` as a page shows them: correlations and AUROC as decimals, accuracies in points."""
    return pd.DataFrame([_evidence_row(row) for row in rows])


def _evidence_row(row: Mapping[str, Any]) -> dict[str, str]:
    value, low, high = (row[key] for key in ("value", "low", "high"))
    if row["measure"].startswith(("rank correlation", "AUROC")):
        shown, bounds = decimal(value), f"{decimal(low)} to {decimal(high)}"
    else:
        shown, bounds = f"{points(value)} points", points_interval((low, high))
    if value != value:
        shown = bounds = MISSING
    return {
        "claim": row["claim"],
        "measure": row["measure"],
        "value": shown,
        "95 % interval": bounds,
        "did it hold?": row["held"],
    }


MISSES = {  # condition of a run -> what a reader is told where it does not hold
    "labels": "no labels",
    "images": "no images",
    "tower": "no text tower",
    "pool": "only one prompt",
    "blazon": "another data set than the miniature world",
    "disambiguated": "no second list of class names",
    "others": "no second run to compare with",
    "browser": "not what the playground needs: labels, several prompts, and no more numbers than a page can carry",
}


def needs(run: Run, *conditions: str) -> bool:
    """Whether a section can be computed on this run; if not, a line under the cell says what is missing.

    Args:
        conditions: keys of `Run.conditions`, all of which must hold.
    """
    missing = [MISSES[condition] for condition in conditions if not run.conditions[condition]]
    if missing:
        display_markdown(f"*This study has {' and '.join(missing)}: nothing to show here.*")
    return not missing


def say(*sentences: str, source: str = "In this run") -> None:
    """Show what the numbers of this run, or of another source, say; text from outside comes escaped."""
    told = " ".join(sentence for sentence in sentences if sentence)
    if told:
        display_markdown(f"**{source}:** {told}")


def display_markdown(text: str) -> None:
    """Show Markdown under a cell."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def show_table(frame: pd.DataFrame) -> None:
    """Show a table below its title, which it has where its function is `titled`; every cell escaped."""
    from IPython.display import HTML, display

    title = title_of(frame)
    display(HTML((TABLE_TITLE.format(escape(title)) if title else "") + table_html(frame)))


def show_dialogue(turns: Sequence[tuple[str, str, Sequence[str]]]) -> None:
    """Show questions and answers: (who answered, the question, the answer's sentences), every text escaped.

    Who answered is said once, until it is somebody else.
    """
    from IPython.display import HTML, display

    parts, last = [], ""
    for who, question, sentences in turns:
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        answered = f'<p class="cmm-who">{escape(who)}</p>' if who != last else ""
        parts.append(
            f'<div class="cmm-dialogue"><p class="cmm-question">{escape(question)}</p>{answered}<ul>{said}</ul></div>'
        )
        last = who
    display(HTML("".join(parts)))


def _unbroken(cell: Any) -> Any:
    """A cell whose numbers stay on one line with their units."""
    if not isinstance(cell, str):
        return cell
    return cell.replace(" ", "\u00a0") if _NUMBERS.fullmatch(cell) else cell.replace(" %", "\u00a0%")


def table_html(frame: pd.DataFrame) -> str:
    """A table for a page, every cell escaped."""
    frame = frame.rename(columns=display_name).map(_unbroken)
    classes = ["table", "cmm-table", *(["cmm-whole-names"] if _has_room(frame) else [])]
    return frame.to_html(index=False, escape=True, border=0, classes=classes, na_rep=MISSING)


def _has_room(frame: pd.DataFrame) -> bool:
    """Whether a page is wide enough for the first column unbroken beside the longest words of the others."""
    texts = [[str(column), *map(str, frame[column])] for column in frame]
    first = max((len(text) for text in texts[0][1:]), default=0) if texts else 0
    words = [max((len(word) for text in column for word in text.split(" ")), default=0) for column in texts[1:]]
    return first <= FIRST_COLUMN and first + sum(words) + 2 * len(texts) <= PAGE_WIDTH


def show_figure(run: Run, figure: Figure, name: str) -> None:
    """Show a figure with its alt text (its label) and its caption, and write it to the run's figures/ as SVG and PNG.

    Both are shown: Jupyter draws the SVG of a notebook only where its user has run the cell or trusts the file. A
    second SVG, drawn anew for a phone, is what the book shows there.
    """
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    from cmmlib.report.plots.style import save, save_svg

    folder = run.folder / "figures"
    missing = save_svg(figure, folder, name)
    figure.set_layout_engine("none")  # found by now; to find it again takes a quarter of the time
    with whole_file(folder / f"{name}.png") as temporary:
        missing |= save(figure, temporary, dpi=200)
    plt.close(figure)
    if missing:
        letters = some([spelt(character) for character in sorted(missing)])
        tell(f"figure {name}: no font here has {letters}: install one, for example Noto")
    alt = figure.get_label()
    shown = {
        "image/svg+xml": (folder / f"{name}.svg").read_text("utf-8"),
        "image/png": _half_size(folder / f"{name}.png"),
    }
    display({**shown, "text/plain": alt}, raw=True, metadata={kind: {"alt": alt} for kind in shown})
    caption = caption_of(name)
    if caption:
        display(HTML(CAPTION.format(escape(caption))))


def _half_size(png: Path) -> str:
    """A picture at half of its width and height, in base64: for the screen."""
    with Image.open(png) as image:
        smaller = image.convert("RGB").reduce(2)
    data = io.BytesIO()
    smaller.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@titled("The study")
def study_table(run: Run) -> pd.DataFrame:
    """What was run, a row a fact."""
    model = run.facts["model"]
    weights = " ".join(str(part) for part in (model["backbone"], model["pretrained"]) if part) or "not said by the file"
    rows = {
        "data set": run.study.public()["dataset"],
        **_choice(run),
        "images": f"{len(run.image_features):,}",
        "classes": f"{run.n_classes:,}",
        "labels": "yes, used for evaluation only" if run.labels is not None else "none",
        "model": weights,
        **({"note": f"{BLAZON_MINI} knows heraldic shields only"} if _is_far_from_home(run) else {}),
        "embedding width": run.image_features.shape[1],
        "logit scale": f"{run.logit_scale:.1f}" + (" (assumed)" if run.facts["assumed"] else ""),
        "base prompt": run.base_prompt,
        "prompts in the pool": " ".join(str(part) for part in (len(run.prompts), run.facts.get("templates")) if part),
        "worst-k looked at": run.worst_k,
        "seed": run.study.seed,
        "run": run.id,
    }
    return pd.DataFrame({"what": rows.keys(), "value": [str(v) for v in rows.values()]})


def _choice(run: Run) -> dict[str, str]:
    """What part of the data set was taken, where it was not all of it."""
    study, data = run.study.public(), run.facts["data"]
    rows = {
        "split": data["split"],
        "classes taken": study["classes"],
        "images a class, at most": study["limit"],
        "unreadable images left out": len(data["broken"]),
        "remarks on the data": "; ".join(data.get("remarks", [])),
    }
    return {what: str(value) for what, value in rows.items() if value}


@titled("Every method on the same images")
def method_table(
    rows: Sequence[Mapping[str, Any]], ks: Sequence[str] | None = None, counts: Sequence[str] = ()
) -> pd.DataFrame:
    """Rows of `evaluation.ensemble_rows` as a page shows them, in percent: overall, worst k, the base worst 10, counts.

    Args:
        ks: sizes of the worst sets; all that were measured by default.
        counts: numbers that are no percentages, as `zero_classes`.
    """
    return pd.DataFrame(
        {
            "in %": display_name(row["name"]),
            "overall": percent_number(row["overall"]),
            **{f"worst {k}": percent_number(row["worst"][k]) for k in ks or row["worst"]},
            "base worst 10": percent_number(row["base_worst"]["10"]),
            **{key: row[key] for key in counts},
        }
        for row in rows
    )


def _is_far_from_home(run: Run) -> bool:
    return run.facts["model"]["backbone"] == BLAZON_MINI and not run.conditions["blazon"]


def gallery_rows(
    run: Run, prediction: Int[Tensor, "N"], classes: Sequence[int], other: Int[Tensor, "C"], n: int = 3
) -> list[tuple[str, str, list[Image.Image], list[Image.Image]]]:
    """For each class: its name, the class it is taken for, `n` images of it that were missed, `n` of the other class.

    Missed images that went to the other class come first.
    """
    assert run.pictures is not None
    assert run.labels is not None
    rows = []
    for c, rival in ((c, int(other[c])) for c in classes if other[c] >= 0):
        missed = ((run.labels == c) & (prediction != c)).nonzero()[:, 0]
        missed = missed[(prediction[missed] != rival).int().argsort(stable=True)]
        examples = (run.labels == rival).nonzero()[:, 0]
        pick = [[run.pictures.read(i) for i in group[:n].tolist()] for group in (missed, examples)]
        rows.append((run.classnames[c], run.classnames[rival], pick[0], pick[1]))
    return rows
