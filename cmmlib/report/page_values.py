"""What the book's own pages say of a run: `{{ name }}` in their text, taken from results.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

from cmmlib.errors import ChapterError
from cmmlib.report.findings.real_clip import lowest_classes
from cmmlib.report.formatting import counted, decimal, join_names, percent, points, points_interval
from cmmlib.report.pages import evidence_table, table_html

_NAME = re.compile(r"\{\{ (\w+) \}\}")


def filled(page: str, values: Mapping[str, str], name: str = "the page") -> str:
    """The page with every `{{ name }}` replaced.

    Raises:
        ChapterError: the run has no value of that name.
    """
    lacking = sorted({found for found in _NAME.findall(page) if found not in values})
    if lacking:
        raise ChapterError(f"{name} asks for {', '.join(lacking)}, which the run's results.json does not hold")
    return _NAME.sub(lambda found: values[found[1]], page)


def page_values(results: Mapping[str, Any]) -> dict[str, str]:
    """Every value that a page may ask for; those of sections that the run lacks are missing."""
    values = {name: f"{results[name]:,}" for name in ("n_images", "n_classes", "worst_k") if name in results}
    if results.get("study"):
        values["study_table"] = _table(pd.DataFrame(results["study"]))
    for section, of in SECTIONS.items():
        if results.get(section):
            values |= of(results)
    return values


def made_with(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a page may say of the making of a run: when, from which commit, with what, and how long it took."""
    seconds = {chapter: done["seconds"] for chapter, done in manifest["chapters"].items()}
    versions = {**manifest["versions"], "platform": manifest["platform"]}
    return {
        "run_id": manifest["id"],
        "made_on": manifest["written"][:10],
        "commit": _commit(manifest["git_commit"]),
        "cmmlib_version": version("cmmlib"),
        "minutes": f"{sum(seconds.values()) / 60:.1f}",
        "chapter_seconds": _table(pd.DataFrame(seconds.items(), columns=["chapter", "seconds"])),
        "versions": _table(pd.DataFrame(versions.items(), columns=["what", "version"])),
    }


def _commit(name: str | None) -> str:
    if not name:
        return "not known"
    return f"`{name[:12]}`" + (" with changes" if name.endswith("-dirty") else "")


def _table(frame: pd.DataFrame) -> str:
    return f"```{{raw}} html\n{table_html(frame)}\n```"


def _real_clip(results: Mapping[str, Any]) -> dict[str, str]:
    """The published model on ImageNet that is nearest to the paper's overall accuracy, and its lowest classes."""
    row, lowest = results["real_clip"]["nearest"], results["real_clip"].get("lowest")
    shown = {f"real_{name}": percent(row[key]) for name, key in (("overall", "overall"), ("worst", "worst_10"))}
    zero = counted(row["zero_classes"], "class", "classes")
    shown["real_lowest"] = _table(lowest_classes(pd.DataFrame(lowest))) if lowest else ""
    return {"real_model": f"{row['backbone']} {row['pretrained']}", "real_zero": zero, **shown}


def _accuracy(results: Mapping[str, Any]) -> dict[str, str]:
    accuracy, k = results["accuracy"], results["worst_k"]
    zero = counted(accuracy["zero_classes"], "class", "classes")
    return {"overall": percent(accuracy["overall"]), "worst": percent(accuracy["worst"][str(k)]), "zero": zero}


def _cmm(results: Mapping[str, Any]) -> dict[str, str]:
    soft, k = results["cmm"]["soft"], results["worst_k"]
    shares = {"precision": percent(soft["precision_at_k"], 0), "chance": percent(soft["chance"], 0)}
    n = soft["n_true"] or k
    ties = f" ({k}, and those that tie with the last)" if n > k else ""
    worst_set = f"{counted(n, 'class', 'classes')} of lowest accuracy{ties}"
    return {"spearman": decimal(soft["spearman"]), "worst_set": worst_set, **shares}


WITHOUT_CMM = {  # our ensemble -> the same texts without weights by CMM, and what these are called
    "enriched_cmm": ("enriched_balanced", "The same texts with balanced equal weights, without CMM,"),
    "cmm_templates": ("uniform", "The same templates with equal weights, without CMM,"),
}


def _ensembles(results: Mapping[str, Any]) -> dict[str, str]:
    """What the ensemble of chapter 4 does to all images and to the classes that were worst before."""
    rows = {row["name"]: row for row in results["ensembles"]}
    base, ours = rows["base"], rows.get("enriched_cmm") or rows.get("cmm_templates")
    if ours is None:
        return {"repair": "This study has one prompt, so there is nothing to weigh."}
    n, left = ours["requests"], counted(ours["zero_classes"], "class", "classes")
    of = len((results.get("enrichment") or {}).get("classes") or ()) or n  # that were asked about
    suspected = "the most suspected class" if of == 1 else f"the {of:,} most suspected classes"
    suspected = suspected if n == of else f"{n:,} of {suspected}"
    asked = f"A language model described {suspected}. " if n else ""
    overall = f"overall accuracy goes from {percent(base['overall'])} to {percent(ours['overall'])}"
    said = (
        f"{asked}Where each text of a class counts by its own CMM, {overall}{_followed(base, ours)}. It leaves {left} "
        f"at zero; before, {base['zero_classes']}."
    )
    return {"repair": f"{said}{_without_cmm(rows, ours, results.get('ensemble_steps') or ())}"}


def _followed(base: Mapping[str, Any], ours: Mapping[str, Any], k: str = "10") -> str:
    """The base prompt's worst k, on the images that they were chosen on and on others; empty where they are too few."""
    n = base["base_worst_count"][k]
    if not n:
        return ""
    same, other = (
        f"from {percent(base[key][k])} to {percent(ours[key][k])}" for key in ("base_worst", "base_worst_split_half")
    )
    ties = f" ({n} classes, because of ties at the last place)" if n > int(k) else ""
    return (
        f", and that of the {k} classes of lowest accuracy{ties} {same} (chosen on half of the images and measured on "
        f"the others, so that luck in choosing does not count as gain: {other})"
    )


def _without_cmm(rows: Mapping[str, Any], ours: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    """What the same texts reach without CMM, and what CMM adds to that: the gain is not all CMM's."""
    plain, texts = WITHOUT_CMM[ours["name"]]
    step = next((step for step in steps if (step["before"], step["after"]) == (plain, ours["name"])), None)
    if plain not in rows or step is None:
        return ""
    places = [("overall", rows[plain]["overall"], step["overall"])]
    if step["base_worst_10"]["value"] is not None:
        places.append(("in these classes", rows[plain]["base_worst_split_half"]["10"], step["base_worst_10"]))
    reached = join_names([f"{percent(value)} {where}" for where, value, _ in places])
    added = [
        f"{points(change['value'])} points {where} (95 % interval {points_interval((change['low'], change['high']))})"
        for where, _, change in places
    ]
    other = ", where these were chosen on other images" if len(places) > 1 else ""
    return f" {texts} reach {reached}; what CMM adds to that is {join_names(added)}{other}."


def _evidence(results: Mapping[str, Any]) -> dict[str, str]:
    return {"evidence": _table(evidence_table(results["evidence"]))}


CAUSES = {  # claim of chapter 6 -> its cause, and the measure
    "classes whose weakest name was read seldom are less accurate": ("name_frequency", "name frequency"),
    "classes whose weakest name was read in another sense are less accurate": ("ambiguity", "ambiguity"),
    "classes that a linear probe confuses are less accurate": ("visual_confusability", "visual confusability"),
}
INTERVENTIONS = {
    "a rare name made frequent brings its classes back": "frequent",
    "an ambiguous name with its other sense removed brings its classes back": "split",
}


def _anatomy(results: Mapping[str, Any]) -> dict[str, str]:
    """The claims of chapter 6 about causes, with figures and verdicts."""
    found, rows = results["anatomy"], []
    for claim, (key, cause) in CAUSES.items():
        if key in found["effects"]:
            effect = found["effects"][key]
            bounds = points_interval((effect["low"], effect["high"]))
            measure = f"change of accuracy for one standard deviation of {cause}"
            rows.append((claim, measure, f"{points(effect['value'])} points", bounds, found["verdicts"][key]))
    for claim, key in INTERVENTIONS.items():
        done = found["interventions"][key]
        measure = f"change of {counted(done['touched'], 'class', 'classes')}"
        value, bounds = f"{points(done['change'])} points", points_interval(done["change_interval"])
        rows.append((claim, measure, value, bounds, done["held"]))
    heads = ["claim", "measure", "value", "95 % interval", "did it hold?"]
    return {"causes": _table(pd.DataFrame(rows, columns=heads)), "probe_here": percent(found.get("probe"))}


def _model_card(results: Mapping[str, Any]) -> dict[str, str]:
    found = results["model_card"]
    rates = {name: percent(found[name]) for name in ("by_name", "described")}
    return {**rates, "logit_scale": decimal(found["logit_scale"], 1)}


SECTIONS = {
    "real_clip": _real_clip,
    "accuracy": _accuracy,
    "cmm": _cmm,
    "ensembles": _ensembles,
    "evidence": _evidence,
    "anatomy": _anatomy,
    "model_card": _model_card,
}
