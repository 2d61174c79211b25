"""Which images a candidate text should be judged on: CMM against assignments that a correction makes first.

CMM judges a candidate by the images that it draws itself. Here other assignments of images to classes are tried, other
scores under them, and weights that are fitted to them, on the class lists and images on which the method's settings
were chosen and on the two prompts of the real pets embeddings (CMM_REAL_DATA); then on the shipped list with its
recorded descriptions, images of seeds that no page uses. Every classifier is judged as it is and after prior matching.

    python benchmarks/ensemble_assignment.py FOLDER [--lists 1 2 3 4 5 6] [--seed 21] [--shipped-seeds 11 12 13]

(with --quick only the first list and seed) writes into FOLDER: ensemble_assignment.csv, what the choice was made on;
ensemble_assignment_shipped.csv, the shipped list; ensemble_assignment_limits.csv, the chosen rules where images are few
or classes are unequally frequent.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from ensemble_settings import PETS, World, described_world
from ensemble_traps import passed, shipped_world, weighted
from torch import Tensor

from cmmlib import functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.functional import ensemble as ens
from cmmlib.functional.candidates import TEMPLATE, Candidates
from cmmlib.functional.resampling import dirichlet_frequencies, few_per_class, with_frequencies
from cmmlib.models.backbones import load_backbone
from cmmlib.storage.cache import whole_file

NO, HALF, YES, LABELS = "no", "at half strength", "yes", "labels"  # whether a rule assumes classes equally frequent
FEW, DRAWS = 5, 3  # images a class; draws of images
SCORES = ["overall", "worst 10"]
Rule = Callable[[World], Tensor]  # gives a classifier [C, D]
Assign = Callable[[World, Tensor], Tensor]  # from a classifier to probabilities [N, C]


# ---------------------------------------------------------------- assignments of images to classes


def by_prior_matching(world: World, classifier: Tensor, strength: float = 1.0) -> Tensor:
    found = F.fit_prior_matching(world.image_features, classifier, world.logit_scale, strength=strength)
    return found.logits(world.image_features).softmax(1)


def by_prototypes(world: World, classifier: Tensor, strength: float = 1.0) -> Tensor:
    found = F.fit_prototypes(world.image_features, classifier, world.logit_scale, strength=strength)
    return found.logits(world.image_features).softmax(1)


def by_half_prior(world: World, classifier: Tensor) -> Tensor:
    return by_prior_matching(world, classifier, 0.5)


def by_half_prototypes(world: World, classifier: Tensor) -> Tensor:
    return by_prototypes(world, classifier, 0.5)


def by_free_prototypes(world: World, classifier: Tensor) -> Tensor:
    return by_prototypes(world, classifier, 0.0)


def by_transclip(world: World, classifier: Tensor) -> Tensor:
    return one_hot(F.transclip(world.image_features, classifier, world.logit_scale), len(classifier))


def by_labels(world: World, classifier: Tensor) -> Tensor:
    return one_hot(world.labels, len(classifier))


def one_hot(prediction: Tensor, n_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(prediction, n_classes).float()


# ---------------------------------------------------------------- rules: from a world to a classifier


def balanced(world: World) -> Tensor:
    return F.combine_candidates(world.candidates, F.uniform_weights(world.candidates, balanced=True))


def cmm(world: World) -> Tensor:
    """The method of chapter 4."""
    return F.cmm_ensemble(world.image_features, world.candidates, world.others, world.logit_scale)


def carprt(world: World) -> Tensor:
    form = (world.image_features, world.candidates, world.others, world.logit_scale)
    return F.combine_candidates(world.candidates, F.carprt_of_candidates(*form))


def carprt_templates(world: World) -> Tensor:
    pool = world.candidates.only(TEMPLATE)
    texts = pool.vectors.unflatten(0, (-1, pool.n_classes))
    weights = F.carprt(world.image_features, texts, world.logit_scale)
    return F.combine_candidates(pool, weights.flatten())


def in_rounds(world: World, score: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The weights of a score that depends on the others' classifier, as often as the method."""
    others = start
    for _ in range(ens.ROUNDS):
        others = F.combine_candidates(world.candidates, F.weigh_candidates(world.candidates, score(others)))
    return others


def equal_mass(world: World, with_bias: bool) -> Tensor:
    """Every candidate gets a bias of its own, such that the images give it N / C in all.

    With `with_bias` the others have the bias of prior matching, and margins are those of biased logits, the candidate's
    own bias included.
    """
    scale = world.logit_scale
    images = torch.nn.functional.pad(world.image_features.float(), (0, 1), value=1.0)  # a bias is one more dimension
    lifted = world._replace(
        image_features=images,
        candidates=replace(world.candidates, vectors=torch.nn.functional.pad(world.candidates.vectors, (0, 1))),
    )

    def score(others: Tensor) -> Tensor:
        bias = torch.zeros(len(others))
        if with_bias:
            bias = F.fit_prior_matching(world.image_features, others, scale).bias.float()
        found = passed(lifted, torch.cat([others, bias[:, None] / scale], 1))
        own = own_bias(found.log_odds, len(images) / len(others))
        q = (found.log_odds + own).sigmoid()
        return weighted(q, found.margin + own / scale if with_bias else found.margin)

    return in_rounds(world, score, world.others)


def own_bias(log_odds: Tensor, mass: float, steps: int = 24) -> Tensor:
    """For every candidate what must be added to its log odds [N, T] that their probabilities sum to `mass`, [T]."""
    low, high = torch.full((2, log_odds.shape[1]), 60.0) * torch.tensor([[-1.0], [1.0]])
    for _ in range(steps):
        middle = (low + high) / 2
        above = (log_odds + middle).sigmoid().sum(0) > mass
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def leave_one_out(world: World) -> Tensor:
    """A candidate is judged on the images that the mean of the *other* candidates of its class draws."""
    classes = world.candidates.classes

    def score(others: Tensor) -> Tensor:
        found = passed(world, others)
        q = found.log_odds.sigmoid()
        total = torch.zeros_like(found.others).index_add_(1, classes, q)
        rest = (total[:, classes] - q) / (classes.bincount()[classes] - 1).clamp_min(1)
        return weighted(rest.clamp_min(1e-12), found.margin)

    return in_rounds(world, score, balanced(world))


def shrunk(world: World) -> Tensor:
    """The method, its weights mixed with the balanced ones: the share of these is the noise in a class's CMMs.

    That is the mean squared standard error of its candidates' CMMs over the variance of the CMMs, at most 1.
    """
    classes, uniform, others = (
        world.candidates.classes,
        F.uniform_weights(world.candidates, balanced=True),
        world.others,
    )
    for _ in range(ens.ROUNDS):
        found = passed(world, others)
        q = found.log_odds.sigmoid()
        score = weighted(q, found.margin)
        error = (q * (found.margin - score)).square().sum(0) / q.sum(0).square()
        noise = torch.zeros(world.candidates.n_classes).index_add_(0, classes, error) / classes.bincount()
        spread = torch.stack([score[rows].var(correction=0) for rows in world.candidates.rows_by_class()])
        share = (noise / spread.clamp_min(1e-12)).clamp_max(1.0)[classes]
        own = F.weigh_candidates(world.candidates, score)
        others = F.combine_candidates(world.candidates, (1 - share) * own + share * uniform)
    return others


def margin_under(assign: Assign) -> Rule:
    """CMM with an assignment that all candidates of a class share; starts at the balanced mean."""

    def rule(world: World) -> Tensor:
        def score(others: Tensor) -> Tensor:
            found = passed(world, others)
            return weighted(assign(world, others)[:, world.candidates.classes], found.margin)

        return in_rounds(world, score, balanced(world))

    return rule


def entropy_under(assign: Assign) -> Rule:
    """In CMM's place how well a candidate alone tells the images assigned to its class from the others.

    That is minus the binary cross-entropy between the assignment and the candidate's probability.
    """

    def rule(world: World) -> Tensor:
        def score(others: Tensor) -> Tensor:
            odds = passed(world, others).log_odds
            wanted = assign(world, others)[:, world.candidates.classes]
            return (wanted * odds + torch.nn.functional.logsigmoid(-odds)).sum(0, dtype=torch.float64)

        return in_rounds(world, score, balanced(world))

    return rule


def fitted_to(assign: Assign, rounds: int = 2) -> Rule:
    def rule(world: World) -> Tensor:
        form = (world.image_features, world.candidates, world.logit_scale)
        return F.fitted_ensemble(*form, lambda classifier: assign(world, classifier), rounds=rounds)

    return rule


RULES: dict[str, tuple[str, Rule]] = {
    "balanced mean": (NO, balanced),
    "CMM (the method)": (NO, cmm),
    "CARPRT, templates alone": (NO, carprt_templates),
    "CARPRT, with descriptions": (NO, carprt),
    "CMM, leave one text out": (NO, leave_one_out),
    "CMM, shrunk by its noise": (NO, shrunk),
    "CMM, equal mass": (YES, lambda world: equal_mass(world, with_bias=False)),
    "CMM, equal mass and biased rivals": (YES, lambda world: equal_mass(world, with_bias=True)),
    "CMM, images of prior matching": (YES, margin_under(by_prior_matching)),
    "CMM, images of prior matching at half strength": (HALF, margin_under(by_half_prior)),
    "CMM, images of prototypes": (YES, margin_under(by_prototypes)),
    "cross-entropy, images of prior matching": (YES, entropy_under(by_prior_matching)),
    "cross-entropy, images of prototypes": (YES, entropy_under(by_prototypes)),
    "cross-entropy, images of TransCLIP": (NO, entropy_under(by_transclip)),
    "fitted, images of prior matching": (YES, fitted_to(by_prior_matching)),
    "fitted, images of prototypes, one round": (YES, fitted_to(by_prototypes, 1)),
    "fitted, images of prototypes": (YES, fitted_to(by_prototypes)),
    "fitted, images of prototypes, three rounds": (YES, fitted_to(by_prototypes, 3)),
    "fitted, images of prototypes at half strength": (HALF, fitted_to(by_half_prototypes)),
    "fitted, images of prototypes without bias": (NO, fitted_to(by_free_prototypes)),
    "fitted, images of TransCLIP": (NO, fitted_to(by_transclip)),
    "CMM, images by their labels": (LABELS, margin_under(by_labels)),
    "fitted, images by their labels": (LABELS, fitted_to(by_labels, 1)),
}
LIMITED = (
    "balanced mean",
    "CMM (the method)",
    "fitted, images of prototypes",
    "fitted, images of prototypes at half strength",
    "fitted, images of TransCLIP",
)


# ---------------------------------------------------------------- tables


def judged(world: World, prediction: Tensor) -> dict[str, float]:
    accuracy = F.class_accuracy(prediction, world.labels, world.candidates.n_classes)
    return {"overall": 100 * accuracy.overall, "worst 10": 100 * (F.worst_at_k(accuracy.value, 10) or 0.0)}


def rows(world: World, collection: str) -> Iterator[dict]:
    for name, (assumes, rule) in RULES.items():
        classifier = rule(world)
        matched = F.fit_prior_matching(world.image_features, classifier, world.logit_scale)
        after = judged(world, matched.predict(world.image_features))
        yield {
            "collection": collection,
            "rule": name,
            "assumes balance": assumes,
            **judged(world, F.predict(world.image_features, classifier)),
            **{f"{score}, matched": value for score, value in after.items()},
        }


def limit_rows(world: World, collection: str) -> Iterator[dict]:
    """The chosen rules on few images, judged on all; and on unequally frequent classes, judged on the same images."""
    n_classes, everything = world.candidates.n_classes, torch.arange(len(world.labels))
    kept = {"all images": [(everything, everything)]}
    kept[f"{FEW} images a class"] = [(few_per_class(world.labels, FEW, draw), everything) for draw in range(DRAWS)]
    for concentration in (5.0, 1.0):
        drawn = [
            with_frequencies(world.labels, dirichlet_frequencies(n_classes, concentration, draw), draw)
            for draw in range(DRAWS)
        ]
        kept[f"frequencies of Dirichlet({concentration:g})"] = [(own, own) for own in drawn]
    for (images, pairs), name in itertools.product(kept.items(), LIMITED):
        for fitted_on, seen in pairs:
            part = world._replace(image_features=world.image_features[fitted_on], labels=world.labels[fitted_on])
            judge = world._replace(image_features=world.image_features[seen], labels=world.labels[seen])
            prediction = F.predict(judge.image_features, RULES[name][1](part))
            score = 100 * float((prediction == judge.labels).double().mean())
            yield {"collection": collection, "images": images, "rule": name, "overall": score}


def pets() -> World:
    """Two prompts of OpenAI's CLIP, without descriptions."""
    data = load_embeddings(PETS)
    assert data.labels is not None
    texts, images = data.text_features.float(), data.image_features.float()
    candidates = Candidates.of_templates(texts)
    return World("pets", images, data.labels, candidates, F.uniform_mean(texts), [], data.logit_scale)


def other_worlds(given: argparse.Namespace) -> Iterator[tuple[str, World]]:
    backbone = load_backbone("blazon-mini", None)
    for list_seed in given.lists:
        yield "other lists", described_world(list_seed, given.seed, backbone)
    if PETS.is_file():
        yield "pets", pets()


def shipped_worlds(given: argparse.Namespace) -> Iterator[tuple[str, World]]:
    for seed in given.shipped_seeds:
        yield "shipped list", shipped_world(seed)


def wide(found: list[dict], keys: list[str], values: list[str]) -> pd.DataFrame:
    """A row a rule; means over the studies of a collection, a column a score, the collection named if there are two."""
    means = pd.DataFrame(found).groupby([*keys, "collection"], sort=False)[values].mean().unstack("collection")
    names = list(dict.fromkeys(row["collection"] for row in found))
    table = means[[(value, name) for name in names for value in values]]
    table.columns = [value if len(names) == 1 else f"{value}, {name}" for name in names for value in values]
    return table.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lists", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--shipped-seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--quick", action="store_true", help="the first list and the first seed alone")
    given = parser.parse_args()
    if given.quick:
        given.lists, given.shipped_seeds = given.lists[:1], given.shipped_seeds[:1]
    found: dict[str, list[dict]] = {"": [], "_shipped": [], "_limits": []}
    for suffix, worlds in (("", other_worlds(given)), ("_shipped", shipped_worlds(given))):
        for collection, world in worlds:
            found[suffix] += rows(world, collection)
            if collection != "pets":
                found["_limits"] += limit_rows(world, collection)
            print(f"{world.name}: done", file=sys.stderr, flush=True)
    scores = [*SCORES, *(f"{score}, matched" for score in SCORES)]
    tables = {
        "": wide(found[""], ["rule", "assumes balance"], scores),
        "_shipped": wide(found["_shipped"], ["rule", "assumes balance"], scores),
        "_limits": wide(found["_limits"], ["images", "rule"], ["overall"]),
    }
    for suffix, table in tables.items():
        if "worst 10, pets" in table:  # the ten of 25 classes are no tail
            table = table[[name for name in table if not (name.endswith("pets") and "worst" in name)]]
        with whole_file(given.folder / f"ensemble_assignment{suffix}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.1f")
        print(table.to_string(index=False, float_format="%.1f"), end="\n\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
