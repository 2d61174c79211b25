"""What a study asks a language model: which classes, which questions, and the answers as text vectors.

All of it is label-free, and takes `run.blind`, a run without its labels."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from cmmlib import functional as F
from cmmlib.errors import ProviderError, counted, tell
from cmmlib.study.open_run import OPENED
from cmmlib.study.run import Run, label_free
from cmmlib.texts.enrichment import RECORDED, Enrichment, replay
from cmmlib.texts.questions import N_RIVALS, Question, ask_about
from cmmlib.texts.transcripts import Transcript, find_domain, known_answers, own_transcript_path


@label_free
def suspects(run: Run, n: int | None = None) -> list[int]:
    """The classes of lowest soft CMM under the base prompt, the lowest first: as many as the study describes, or n."""
    passed = run.similarity_pass()
    return F.rank_classes(F.class_matching_margin(passed, "soft")[0])[: n or run.n_described].tolist()


@label_free
def questions(run: Run, classes: list[int]) -> dict[int, Question]:
    """What the study asks about these classes."""
    study = run.study
    domain = study.domain or find_domain(run.classnames)
    if study.question == "describe":
        return ask_about(classes, run.classnames, domain)
    rivals = F.top_rivals(run.image_features, run.base_text_features, run.logit_scale, N_RIVALS)
    return ask_about(classes, run.classnames, domain, "contrast", lambda c: rivals[c])


@label_free
def enrich(run: Run, classes: list[int] | None = None) -> Enrichment:
    """Descriptions of the suspects or of other classes: recorded ones, or live answers where the study names a model.

    A chapter of `cmm run` asks nothing: answers are part of what a run is, so the run asks before its chapters.

    Raises:
        InputError: the study has no text tower, or the model refuses.
        ProviderError: the model gives no answer to several classes in a row.
    """
    assert run.backbone is not None
    asked = questions(run, suspects(run) if classes is None else classes)
    transcript, fits_context = known_answers(run.study.transcript), run.backbone.fits_context
    if run.study.llm == RECORDED:
        return replay(asked, transcript, fits_context)
    recorded = replay(asked, transcript, fits_context, run.study.llm)
    todo = {c: asked[c] for c in (*recorded.missing, *recorded.failed)}
    if not todo or OPENED in os.environ:
        return recorded
    from cmmlib.texts import llm

    path = Path(run.study.transcript) if run.study.transcript else own_transcript_path()
    budget = llm.Budget(run.study.max_requests, run.study.max_cost)
    records, failed, spent = llm.ask(
        todo, llm.Session(run.study.llm, path, run.study.llm_base_url, budget), fits_context
    )
    answered = replay(asked, transcript + Transcript(records.values()), fits_context, run.study.llm)
    answered.failed.update(failed)
    answered.missing[:] = [c for c in answered.missing if c not in failed]
    return replace(answered, spent=spent)


@label_free
def ask(run: Run, classes: list[int] | None = None) -> Enrichment:
    """As `enrich`, and lines on what failed and what it cost.

    Raises:
        InputError: as `enrich`.
        ProviderError: as `enrich`.
    """
    enrichment = enrich(run, classes)
    for c, reason in enrichment.failed.items():
        tell(f"{run.classnames[c]}: {reason}")
    if spent := enrichment.spent:
        cost = f"{spent.cost:.4f} US dollars" if spent.priced else "at an unknown cost"
        tell(f"{counted(spent.requests, 'request')}, {counted(spent.tokens, 'token')}, {cost}")
    return enrichment


def require_described(enrichment: Enrichment, model: str) -> None:
    """Refuse to go on where a language model was asked in vain.

    Raises:
        ProviderError: no class has a description, and some answers failed.
    """
    if enrichment.failed and not enrichment.descriptions:
        reason = Counter(enrichment.failed.values()).most_common(1)[0][0]
        raise ProviderError(f"llm: {model} described no class: {reason}")


@label_free
def encode_descriptions(run: Run, enrichment: Enrichment) -> dict[int, Float[Tensor, "K D"]]:
    """Text vectors of every description, by class."""
    groups = enrichment.descriptions
    if not groups:
        return {}
    vectors = run.encode([text for texts in groups.values() for text in texts])
    return dict(zip(groups, vectors.split([len(texts) for texts in groups.values()]), strict=True))


@label_free
def enrich_all(run: Run) -> Enrichment:
    """Recorded descriptions of all classes, whatever model wrote them; never asks."""
    assert run.backbone is not None
    everything = questions(run, list(range(run.n_classes)))
    return replay(everything, known_answers(run.study.transcript), run.backbone.fits_context)
