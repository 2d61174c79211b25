"""What a run would find and do: the answer of `cmm run --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmmlib.data.load import ImageSet
from cmmlib.errors import counted
from cmmlib.report.chapters import WITH_ANSWERS, belonging, chapters
from cmmlib.report.cost import Cost
from cmmlib.storage.cache import fix_cache_folder
from cmmlib.storage.text_files import require_writable
from cmmlib.study.open_run import (
    check_out,
    check_precision,
    published_digests,
    study_backbone,
    study_data,
    template_pool,
)
from cmmlib.study.remarks import odd_names, odd_scale, odd_texts, of_model
from cmmlib.study.run import fits_browser, is_blazon
from cmmlib.study.run_files import require_different_runs
from cmmlib.study.study import Study
from cmmlib.texts.enrichment import RECORDED
from cmmlib.texts.provider import Provider
from cmmlib.texts.transcripts import known_answers, own_transcript_path, require_appendable


def plan(study: Study, only: str | None = None) -> str:
    """What `chapters.run_study` would find and do, without doing it.

    Raises:
        InputError: whatever `run_study` would refuse before it computes.
    """
    fix_cache_folder()
    wanted = belonging(chapters(only), {"blazon": is_blazon(study.dataset), "labels": True, "browser": True})
    require_different_runs(study.other_runs)
    check_out(study)
    require_writable(Path(study.out) / "run")
    _check_answers(study, wanted)
    check_precision(study)
    published_digests(study)
    data = study_data(study)
    n_images = len(data) if isinstance(data, ImageSet) else len(data.image_features)
    sizes = f"{counted(n_images, 'image')}, {counted(len(data.classnames), 'class', 'classes')}"
    labels = "labels" if data.labels is not None else "no labels"
    cost, browser = None, False
    if not isinstance(data, ImageSet):
        cost = Cost.of(data.image_features, data.text_features)
        browser = fits_browser(*data.image_features.shape, *data.text_features.shape[:2])
    lines = [f"data set {study.public()['dataset']}: {sizes}, {labels}", *data.remarks, *odd_names(data.classnames)]
    if isinstance(data, ImageSet):
        from cmmlib.models.embed import missing

        backbone = study_backbone(study)
        lines += of_model(study, backbone)
        n_missing = missing(backbone, data, study.storage)
        if n_missing:
            lines += odd_scale(backbone.logit_scale)  # and weights of another architecture are told now
        else:
            backbone.check_weights()
        _, templates = template_pool(study, data)
        lines += odd_texts(backbone, study, templates, data.classnames)
        todo = counted(n_missing, "image embedding")
        lines.append(f"model {backbone.public_name}: {todo} to compute, the rest is cached")
        width = backbone.checkpoint.configuration.get("embed_dim")
        if isinstance(width, int):
            cost = Cost(n_images, len(data.classnames), len(templates), width)
            browser = fits_browser(n_images, width, len(templates), len(data.classnames))
    if only is None and cost is not None:
        lines += [cost.told(), *filter(None, [cost.warning()])]
    has_labels = data.labels is not None
    known = {"blazon": is_blazon(study.dataset), "labels": has_labels, "browser": has_labels and browser}
    lines.append("chapters: " + ", ".join(path.stem for path in belonging(wanted, known)))
    return "\n".join(" ".join(line.splitlines()) for line in lines)  # a name may hold a line break


def _check_answers(study: Study, wanted: Sequence[Path]) -> None:
    """Refuse a transcript that cannot be read or added to, and a language model of no provider, as chapter 3 would."""
    if study.kind == "embeddings" or not any(path.stem[:2] in WITH_ANSWERS for path in wanted):
        return
    records = known_answers(study.transcript).records
    if study.llm != RECORDED and not any(record.model == study.llm for record in records):
        Provider(study.llm, study.llm_base_url).require_name()
        require_appendable(Path(study.transcript) if study.transcript else own_transcript_path())
