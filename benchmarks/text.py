"""Text embeddings without padding against open_clip.build_zero_shot_classifier: time, and that the vectors are equal.

    python benchmarks/text.py                                     # 40 names x 80 templates, 2 pairs: about 12 minutes
    python benchmarks/text.py --names 8 --templates 20 --pairs 3  # a minute

The model is a ViT-B-32 with random weights: it is good for time and for equality, its embeddings mean nothing.
Both sides run in one process, in turns, on texts that neither has embedded before, and both include the tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from cmmlib.models.backbones import Backbone, load_backbone
from cmmlib.models.embed_texts import encode_texts
from cmmlib.texts.templates import PromptBank, load_templates

ARCHITECTURE = "ViT-B-32"
TOLERANCE = 1e-5


def random_backbone(folder: Path) -> Backbone:
    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE)
    path = folder / "random-weights.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return load_backbone(ARCHITECTURE, str(path), "cpu")


def reference(backbone: Backbone, names: list[str], templates: list[str]) -> Tensor:
    classifier = open_clip.build_zero_shot_classifier(backbone.model, backbone.tokenizer, names, templates)
    return classifier.T  # [C, D]


def trimmed(backbone: Backbone, names: list[str], templates: list[str]) -> Tensor:
    texts = PromptBank.of_templates(templates, names).texts
    heads = encode_texts(backbone, texts).reshape(len(templates), len(names), -1)  # [P, C, D]
    return torch.nn.functional.normalize(heads.mean(0), dim=-1)  # [C, D]


def seconds(function: Callable[..., Tensor], *args) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def measure(backbone: Backbone, names: list[str], templates: list[str], pairs: int) -> dict:
    """Time both sides in turns; the ratio is taken within each pair, so that a busy machine slows both."""
    args = backbone, names, templates
    lengths = backbone.text_lengths(backbone.tokenizer(PromptBank.of_templates(templates, names).texts))
    trimmed(backbone, names[:1], templates[:2])
    reference(backbone, names[:1], templates[:2])
    runs, difference = [], 0.0
    for number in range(pairs):
        (slow, expected), (fast, found) = seconds(reference, *args), seconds(trimmed, *args)
        difference = max(difference, float((expected - found).abs().max()))
        runs.append({"open_clip_s": slow, "cmmlib_s": fast, "ratio": slow / fast})
        print(f"pair {number + 1} of {pairs}: {slow:.1f} s, {fast:.1f} s, {slow / fast:.2f} times faster", flush=True)
    return {
        "model": f"{ARCHITECTURE}, random weights (speed and equality only)",
        "classes": len(names),
        "templates": len(templates),
        "token_lengths": {"min": int(lengths.min()), "median": int(lengths.median()), "max": int(lengths.max())},
        "context": 77,
        "mean_share_of_context": float(lengths.double().mean()) / 77,
        "runs": runs,
        "median_ratio": statistics.median(run["ratio"] for run in runs),
        "median_texts_per_s": len(lengths) / statistics.median(run["cmmlib_s"] for run in runs),
        "max_abs_difference": difference,
        "equal": difference <= TOLERANCE,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def table(result: dict) -> str:
    lengths = result["token_lengths"]
    median = {key: statistics.median(run[key] for run in result["runs"]) for key in ("open_clip_s", "cmmlib_s")}
    rows = {
        "model": result["model"],
        "texts": f"{result['classes']} names x {result['templates']} templates",
        "token lengths": ", ".join(f"{key} {value}" for key, value in lengths.items()) + f" of {result['context']}",
        "open_clip.build_zero_shot_classifier": f"{median['open_clip_s']:.1f} s",
        "cmmlib encode_texts": f"{median['cmmlib_s']:.1f} s, {result['median_texts_per_s']:.0f} texts/s",
        "torch threads": result["threads"],
        "ratio, median of pairs": f"{result['median_ratio']:.2f} (aim 6)",
        "largest difference of a coordinate": f"{result['max_abs_difference']:.1e} (limit {TOLERANCE:.0e})",
    }
    return "\n".join(f"{key:38}{value}" for key, value in rows.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=40, help="ImageNet class names, of 1000")
    parser.add_argument("--templates", type=int, default=80, help="of OpenAI's 80 ImageNet templates")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, help="of torch [default: its own]; 1 where others use the cores too")
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = open_clip.IMAGENET_CLASSNAMES[: options.names]
    with tempfile.TemporaryDirectory() as folder:
        backbone = random_backbone(Path(folder))
        result = measure(backbone, names, load_templates("openai-80")[: options.templates], options.pairs)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
