"""CLIP_benchmark's own evaluation of the same model on the same web data set: it must give our figures to the digit."""

from __future__ import annotations

import gc
import io
from pathlib import Path

import pytest
import torch
from clip_benchmark.datasets.builder import build_dataset
from clip_benchmark.metrics import zeroshot_classification as theirs
from data_sets import shard, text

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.data.load import load_dataset
from cmmlib.data.subsets import draw
from cmmlib.evaluation.methods import compare_methods
from cmmlib.models.backbones import Backbone
from cmmlib.texts.templates import load_templates

A_CLASS = 3  # images


@pytest.fixture
def shields(tmp_path) -> Path:
    """Images of the embedded world as a web data set of two shards."""
    data, root = draw(load_dataset("blazon"), A_CLASS, 0), tmp_path / "shields"
    text(root / "classnames.txt", "\n".join(data.classnames))
    text(root / "zeroshot_classification_templates.txt", "\n".join(load_templates("blazon-24")).replace("{}", "{c}"))
    text(root / "test" / "nshards.txt", "2")
    members: list[dict[str, bytes]] = [{}, {}]
    for i, label in enumerate(data.labels.tolist()):
        stream = io.BytesIO()
        data.read(i).save(stream, "PNG")
        members[i % 2] |= {f"s{i:07d}.png": stream.getvalue(), f"s{i:07d}.cls": str(label).encode()}
    for number, content in enumerate(members):
        shard(root / "test" / f"{number}.tar", content)
    return root


def top(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    """Theirs takes a float of an array with one element, which numpy 2.4 refuses."""
    order = output.argsort(1, descending=True)
    return [float((order[:, :k] == target[:, None]).any(1).double().mean()) for k in topk]


def evaluated(root: Path, backbone: Backbone) -> dict[str, float]:
    """Their figures, with their reader of shards, which leaves its files to be closed by the garbage collector."""
    data = build_dataset(f"wds/{root.name}", str(root), backbone.preprocess, "test")
    loader = torch.utils.data.DataLoader(data.batched(64), batch_size=None)
    loader.dataset.classes = data.classes
    given = (loader, backbone.tokenizer, data.classes, data.templates)
    try:
        return theirs.evaluate(backbone.model, *given, "cpu", amp=False)
    finally:
        del data, loader, given
        gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:WebDataset.shardshuffle:UserWarning")
def test_the_mean_of_templates_has_their_accuracy_and_mean_per_class(shields, monkeypatch):
    run = open_run(Study.of({"dataset": f"wds:{shields}", "backbone": "blazon-mini"}))
    uniform = next(method for method in compare_methods(run.blind, {}) if method.name == "uniform")
    assert run.labels is not None
    ours = F.class_accuracy(uniform.prediction, run.labels, run.n_classes)

    monkeypatch.setattr(theirs, "accuracy", top)
    found = evaluated(shields, run.backbone)
    assert len(run.labels) == A_CLASS * run.n_classes
    assert found["acc1"] == pytest.approx(ours.overall, abs=1e-12)
    assert found["mean_per_class_recall"] == pytest.approx(ours.mean_per_class, abs=1e-12)
    assert 0.3 < ours.overall < 1
