"""Three traps of weighing descriptions by CMM: how large each is, and what other remedies would do.

Shift: only some classes have descriptions, whose similarities may lie at another level than the others'. Scale:
margins of templates and of descriptions may not be comparable. Robbing: a description that wins other classes' images
raises its own class and lowers its rivals. Each is measured, and the method is compared with variants, on the class
lists and images on which the method's settings were chosen, and on the shipped list with its recorded descriptions.

    python benchmarks/ensemble_traps.py FOLDER [--lists 1 2 3 4 5 6] [--seed 21] [--shipped-seeds 11 12 13]

writes FOLDER/ensemble_traps.csv, accuracies of every variant, and FOLDER/ensemble_traps_sizes.csv, how large they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from ensemble_settings import World, described_world
from torch import Tensor

from cmmlib import functional as F
from cmmlib.functional import ensemble as ens
from cmmlib.functional.candidates import DESCRIPTION, TEMPLATE, Candidates
from cmmlib.functional.prompt_baselines import uniform_mean
from cmmlib.functional.zero_shot import predict
from cmmlib.models.backbones import load_backbone
from cmmlib.storage.cache import whole_file
from cmmlib.study import enrich
from cmmlib.study.open_run import open_run
from cmmlib.study.study import Study

OTHER, SHIPPED = "other lists", "shipped list"
Score = Callable[["World", "Matches"], Tensor]
Filter = Callable[["World", "Matches"], Tensor]


def shipped_world(seed: int) -> World:
    """The shipped class list, its suspects described by the recorded answers, as chapters 3 and 4 do."""
    run = open_run(Study.of({"dataset": "blazon", "seed": seed}))
    blind = run.blind
    described = enrich.encode_descriptions(blind, enrich.enrich(blind))
    candidates = Candidates.of_templates(run.text_features).with_descriptions(described)
    assert run.labels is not None
    others = uniform_mean(run.text_features)
    return World("blazon", run.image_features, run.labels, candidates, others, list(described), run.logit_scale)


# ---------------------------------------------------------------- scores of the candidates


class Matches(NamedTuple):
    """Every candidate alone in the classifier `others`, on every image: what `candidate_cmm` sums, kept whole."""

    similarity: Tensor  # of images and candidates, [N, T]
    others: Tensor  # of images and the classifier, [N, C]
    margin: Tensor  # of each candidate to the best other class, [N, T]
    log_odds: Tensor  # of each candidate against all other classes, [N, T]


def passed(world: World, others: Tensor) -> Matches:
    similarity, classes = world.image_features @ world.candidates.vectors.T, world.candidates.classes
    around = world.image_features @ others.T
    rival, log_rest = torch.empty_like(around), torch.empty_like(around)
    for c in range(around.shape[1]):
        rest = around.index_fill(1, torch.tensor([c]), -torch.inf)
        rival[:, c], log_rest[:, c] = rest.amax(1), (world.logit_scale * rest).logsumexp(1)
    log_odds = world.logit_scale * similarity - log_rest[:, classes]
    return Matches(similarity, around, similarity - rival[:, classes], log_odds)


def weighted(q: Tensor, margin: Tensor) -> Tensor:
    """Mean margin over images of weights q, both [N, T]."""
    return ((q * margin).sum(0, dtype=torch.float64) / q.sum(0, dtype=torch.float64)).float()


def plain(world: World, found: Matches) -> Tensor:
    """CMM with the soft assignment: the method."""
    return weighted(found.log_odds.sigmoid(), found.margin)


def scale_free(world: World, found: Matches) -> Tensor:
    """CMM of margins in units of each image's deviation of similarities over classes, the candidate among them."""
    classes, n_classes = world.candidates.classes, world.candidates.n_classes
    total = found.others.sum(1, keepdim=True) - found.others[:, classes] + found.similarity
    squares = found.others.square().sum(1, keepdim=True) - found.others[:, classes].square() + found.similarity**2
    deviation = (squares / n_classes - (total / n_classes) ** 2).clamp_min(1e-12).sqrt()
    return weighted(found.log_odds.sigmoid(), found.margin / deviation)


def shared(world: World, found: Matches) -> Tensor:
    """All candidates of a class judged on the same images: by their mean probability."""
    q, classes = found.log_odds.sigmoid(), world.candidates.classes
    mean = torch.zeros_like(found.others).index_add_(1, classes, q) / classes.bincount()
    return weighted(mean[:, classes], found.margin)


def standardised(world: World, found: Matches, among: Tensor) -> Tensor:
    """CMM less its group's mean, over its group's deviation: both over the candidates that `among` marks, [T]."""
    score, result = plain(world, found), torch.empty(len(among))
    for group in (TEMPLATE, DESCRIPTION):
        own = world.candidates.groups == group
        known = score[own & among]
        result[own] = (score[own] - known.mean()) / known.std(correction=0)
    return result


def over_all(world: World, found: Matches) -> Tensor:
    return standardised(world, found, torch.ones(len(world.candidates.classes), dtype=torch.bool))


def over_described(world: World, found: Matches) -> Tensor:
    return standardised(world, found, of_suspects(world, world.candidates.classes))


def of_suspects(world: World, classes: Tensor) -> Tensor:
    return torch.isin(classes, torch.tensor(world.suspects))


# ---------------------------------------------------------------- which descriptions may take part


def all_kept(world: World, found: Matches) -> Tensor:
    return torch.ones(len(world.candidates.classes), dtype=torch.bool)


def newly_won(world: World, found: Matches) -> Tensor:
    """Images that a candidate wins for its class and the current classifier gives to another: [N, T]."""
    return (found.margin > 0) & (found.others.argmax(1)[:, None] != world.candidates.classes)


def robbers_dropped(world: World, found: Matches, quantile: float = 0.0) -> Tensor:
    """Candidates without the descriptions that win mostly what unsuspected classes hold safely: a mask, [T].

    A description is dropped if more than half of the images that it would newly win for its class go, under the
    current classifier, to classes that are no suspects, with a margin above that quantile of all images' margins.
    """
    top = found.others.topk(2, dim=1)
    held = top.values[:, 0] - top.values[:, 1]
    safe = ~of_suspects(world, top.indices[:, 0]) & (held >= held.quantile(quantile))
    won = newly_won(world, found)
    robs = (won & safe[:, None]).sum(0) > won.sum(0) / 2
    return ~(robs & (world.candidates.groups == DESCRIPTION))


def safe_robbers_dropped(world: World, found: Matches) -> Tensor:
    return robbers_dropped(world, found, 0.5)


# ---------------------------------------------------------------- variants


def method(world: World, **settings: Any) -> Tensor:
    """The weighted ensemble, with the project's settings or others: [C, D]."""
    return F.cmm_ensemble(world.image_features, world.candidates, world.others, world.logit_scale, **settings)


def changed(world: World, score: Score = plain, kept: Filter = all_kept) -> Tensor:
    """The method with another score of the candidates, or with some left out: [C, D]."""
    others = world.others
    for _ in range(ens.ROUNDS):
        found = passed(world, others)
        mask = kept(world, found)
        chosen = world.candidates.where(mask)
        others = F.combine_candidates(chosen, F.weigh_candidates(chosen, score(world, found)[mask]))
    return others


def shift(world: World, head: Tensor) -> Tensor:
    """How much each class's mean similarity with all images lies above that of the uniform mean of templates, [C]."""
    return (world.image_features @ (head - world.others).T).mean(0)


def unshifted(world: World, head: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Predictions of a classifier without the shift of its classes."""
    similarity, moved = world.image_features @ head.T, shift(world, head)
    described = of_suspects(world, torch.arange(len(head)))
    common = described * (moved[described].mean() - moved[~described].mean())
    yield "described classes without their common shift", (similarity - common).argmax(1)
    yield "every class without its own shift", (similarity - moved).argmax(1)


def variants(world: World) -> Iterator[tuple[str, str, Tensor]]:
    """Trap, variant, and its predictions."""
    heads = {
        ("", "the method"): method(world),
        ("scale", "groups without equal mass"): method(world, balanced=False),
        ("scale", "margins over their spread"): changed(world, scale_free),
        ("scale", "standardised by group, all classes"): changed(world, over_all),
        ("scale", "standardised by group, described classes"): changed(world, over_described),
        ("robbing", "one round"): method(world, rounds=1),
        ("robbing", "three rounds"): method(world, rounds=3),
        ("robbing", "shared assignment"): changed(world, shared),
        ("robbing", "filter: robs unsuspected classes"): changed(world, kept=robbers_dropped),
        ("robbing", "filter: robs their safe images"): changed(world, kept=safe_robbers_dropped),
    }
    for (trap, name), head in heads.items():
        yield trap, name, predict(world.image_features, head)
        if not trap:
            yield from (("shift", variant, prediction) for variant, prediction in unshifted(world, head))


def sizes(world: World) -> Iterator[tuple[str, float]]:
    """How large the traps are: measures by name."""
    yield from sizes_of_shift(world)
    found = passed(world, world.others)
    yield from sizes_of_scale(world, plain(world, found))
    for name, kept in (("unsuspected classes", robbers_dropped), ("their safe images", safe_robbers_dropped)):
        dropped = ~kept(world, found)
        own = (world.labels[:, None] == world.candidates.classes)[newly_won(world, found) & dropped]
        yield f"descriptions that rob {name} (%)", percent(dropped[world.candidates.groups == DESCRIPTION])
        yield f"right among what those that rob {name} win (%)", percent(own)
    right = predict(world.image_features, world.others) == world.labels
    for rounds in (1, 2, 3):
        after = predict(world.image_features, method(world, rounds=rounds))
        robbed = right & (after != world.labels) & of_suspects(world, after)
        yield f"images lost to described classes, rounds: {rounds} (%)", percent(robbed)


def percent(true: Tensor) -> float:
    return 100 * float(true.double().mean())


def sizes_of_shift(world: World) -> Iterator[tuple[str, float]]:
    """Mean shift of described and other classes, in mean deviations of an image's similarities over classes."""
    deviation = (world.image_features @ world.others.T).std(1).mean()
    moved = world.image_features @ (method(world) - world.others).T / deviation  # [N, C]
    described = of_suspects(world, torch.arange(moved.shape[1]))
    own = world.labels[:, None] == torch.arange(moved.shape[1])
    yield "shift of described classes (deviations)", float(moved[:, described].mean())
    yield "the same, on their own images", float(moved[own & described].mean())
    yield "shift of the other classes (deviations)", float(moved[:, ~described].mean())


def sizes_of_scale(world: World, cmm: Tensor) -> Iterator[tuple[str, float]]:
    """CMM of both groups of candidates of described classes, and the weight that descriptions get there."""
    candidates = world.candidates
    suspected = of_suspects(world, candidates.classes)
    for name, group in (("templates", TEMPLATE), ("descriptions", DESCRIPTION)):
        own = cmm[suspected & (candidates.groups == group)]
        yield f"CMM of {name}, mean", float(own.mean())
        yield f"CMM of {name}, deviation", float(own.std())
    for name, balanced in (("with", True), ("without", False)):
        weights = F.weigh_candidates(candidates, cmm, balanced=balanced)
        mass = weights[candidates.groups == DESCRIPTION].sum() / len(world.suspects)
        yield f"weight of descriptions, groups {name} equal mass (%)", 100 * float(mass)


def accuracies(world: World) -> list[dict]:
    rows = []
    for trap, variant, prediction in variants(world):
        accuracy = F.class_accuracy(prediction, world.labels, world.candidates.n_classes)
        worst = F.worst_at_k(accuracy.value, 10)
        scores = {"overall": 100 * accuracy.overall, "worst 10": 100 * (worst or 0.0)}
        rows.append({"trap": trap, "variant": variant, **scores})
    return rows


def worlds(given: argparse.Namespace) -> Iterator[tuple[str, World]]:
    backbone = load_backbone("blazon-mini", None)
    for list_seed in given.lists:
        yield OTHER, described_world(list_seed, given.seed, backbone)
    for seed in given.shipped_seeds:
        yield SHIPPED, shipped_world(seed)


def side_by_side(rows: list[dict], keys: list[str], values: list[str]) -> pd.DataFrame:
    """Means over the studies of a collection, in columns such as `overall, other lists`."""
    means = pd.DataFrame(rows).groupby([*keys, "collection"], sort=False)[values].mean().unstack("collection")
    order = [(value, collection) for collection in (OTHER, SHIPPED) for value in values if (value, collection) in means]
    table = means[order]
    table.columns = [f"{value}, {collection} (%)" if len(values) > 1 else collection for value, collection in order]
    return table.reset_index()


def digits(value: float | str) -> str:
    """Three digits of a number, text as it is."""
    return value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lists", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--shipped-seeds", type=int, nargs="+", default=[11, 12, 13])
    given = parser.parse_args()
    scores, measured = [], []
    for collection, world in worlds(given):
        scores += [{"collection": collection, **row} for row in accuracies(world)]
        measured += [{"collection": collection, "measure": name, "value": value} for name, value in sizes(world)]
        print(f"{world.name}: done", file=sys.stderr, flush=True)
    tables = {
        "ensemble_traps": side_by_side(scores, ["trap", "variant"], ["overall", "worst 10"]).round(1),
        "ensemble_traps_sizes": side_by_side(measured, ["measure"], ["value"]).map(digits),
    }
    for name, table in tables.items():
        with whole_file(given.folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        print(table.to_string(index=False), end="\n\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
