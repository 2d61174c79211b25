"""`cmm blazon`: train the model of the embedded world, and measure trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmmlib.errors import InputError, tell
from cmmlib.study.study import LARGEST

app = typer.Typer(rich_markup_mode=None, help="The embedded world: train its model.")


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="folder of the training run; a killed run goes on there")],
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="seed of images, captions, order and weights")] = 0,
    samples: Annotated[
        int, typer.Option(min=1, max=LARGEST, help="image-caption pairs seen; fixes the schedule")
    ] = 600_000,
    images: Annotated[int, typer.Option(min=1, max=LARGEST, help="training images rendered")] = 160_000,
    captions: Annotated[int, typer.Option(min=1, max=LARGEST, help="captions written for each image")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, max=LARGEST, help="pairs a step")] = 384,
    frequent: Annotated[list[str] | None, typer.Option(help="intervention: make a name frequent; repeatable")] = None,
    split: Annotated[str | None, typer.Option(help="intervention: give a name's everyday sense its own word")] = None,
) -> None:
    """Train blazon-mini from scratch: render, caption, tokenise, train; writes weights, configuration and record."""
    from cmmlib.blazon.training import pretrain as training

    if not batch_size <= min(images, samples):
        raise InputError(f"--batch-size: {batch_size} is more than the images or the samples")
    recipe = training.Recipe(
        seed=seed,
        samples=samples,
        images=images,
        captions=captions,
        batch_size=batch_size,
        frequent=tuple(frequent or ()),
        split=split,
    )
    print(training.pretrain(recipe, out, tell, training.zero_shot_probe()))


@app.command()
def measure(
    weights: Annotated[list[Path], typer.Argument(help="safetensors files of blazon-mini, one a training run")],
) -> None:
    """What trained weights can do, over evaluation seeds 1, 2 and 3: the numbers of the model card, as JSON."""
    import json

    from cmmlib.evaluation.model_card import measure as measured

    print(json.dumps([measured(path) for path in weights], indent=1))
