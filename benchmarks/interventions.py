"""Does a class recover when its name is read more often, or in one sense only? Trains, measures, writes the record.

    python benchmarks/interventions.py OUT

trains the control and the two interventions of `blazon.training.interventions` into folders of OUT, some minutes each
on two cores; a killed run goes on where it was. It writes what the chapter on causes reads, interventions.json among
the shipped files: accuracy and CMM of every class by name, means over three evaluation seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cmmlib import functional as F
from cmmlib.blazon.classes import load_classes
from cmmlib.blazon.heraldry import blazon
from cmmlib.blazon.training.interventions import FREQUENT, RECIPES, RECORD, SPLIT
from cmmlib.blazon.training.model import NAME
from cmmlib.blazon.training.pretrain import pretrain
from cmmlib.data.load import load_blazon
from cmmlib.functional.similarity import similarity_pass
from cmmlib.models.backbones import Backbone, load_backbone
from cmmlib.models.embed import embed_images
from cmmlib.models.embed_texts import embed_texts
from cmmlib.storage.cache import write_text
from cmmlib.texts.templates import BASE_TEMPLATE, fill

SEEDS = (1, 2, 3)


@torch.inference_mode()
def measure(backbone: Backbone, data: dict[int, Any]) -> dict[str, list[float]]:
    """Accuracy and soft CMM of every class, by name in the base template."""
    texts = embed_texts(backbone, [fill(BASE_TEMPLATE, blazon(arms)) for arms in load_classes()])
    accuracies, scores = [], []
    for images in data.values():
        found = similarity_pass(embed_images(backbone, images), texts[None], backbone.logit_scale)
        prediction = found.prediction[0].long()
        accuracies.append(F.class_accuracy(prediction, images.labels, len(texts)).value)
        scores.append(F.class_matching_margin(found, "soft")[0])
    means = {"accuracy": torch.stack(accuracies).mean(0), "cmm": torch.stack(scores).mean(0)}
    return {name: [round(value, 5) for value in values.tolist()] for name, values in means.items()}


def readings(folder: Path) -> dict[str, dict[str, int]]:
    """How often the changed names were read, in their own sense and under other pictures."""
    table = pd.read_csv(folder / "frequencies.csv", keep_default_na=False).query("is_name").set_index("term")
    counts = table[["shown", "not_shown"]].astype(int).set_axis(["read", "elsewhere"], axis=1)
    return {str(name): row.to_dict() for name, row in counts.loc[[*FREQUENT, SPLIT]].iterrows()}


def progress(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that receives the training runs")
    out = parser.parse_args().out
    data, runs = {seed: load_blazon(seed=seed) for seed in SEEDS}, {}
    for name, recipe in RECIPES.items():
        folder = out / name
        weights = folder / "open_clip_model.safetensors"
        if not weights.exists():
            pretrain(recipe, folder, progress)
        record = json.loads((folder / "record.json").read_text())
        runs[name] = {
            **{key: record[key] for key in ("recipe", "steps", "first_batch", "weights", "versions", "processor")},
            "last_loss": record["loss_every_20"][-1],
            "readings": readings(folder),
            **measure(load_backbone(NAME, str(weights)), data),
        }
        progress(f"{name}: {100 * sum(runs[name]['accuracy']) / len(runs[name]['accuracy']):.1f} % overall")
    write_text(RECORD, json.dumps({"evaluation_seeds": SEEDS, "runs": runs}, indent=1) + "\n")
    print(RECORD)


if __name__ == "__main__":
    main()
