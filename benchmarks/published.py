"""Tables from published accuracies per class: cmmlib/evaluation/published/*.csv, which the chapter on real CLIP shows.

Give a clone of the repository that `cmmlib.evaluation.published` names, at its commit, and a CSV file of CUB-200 with
the columns `clip_standard` and `dclip_gpt3` (accuracies per class in percent of OpenAI's ViT-B/32 with class names and
with GPT-3 descriptions: LukeHeffAI/DCLIP2, commit 3929d66). Parameters and multiplications are counted on models
without weights.

    python benchmarks/published.py CLONE CUB.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from cmmlib.evaluation import published
from cmmlib.evaluation.published_files import REGISTRY, with_sizes
from cmmlib.evaluation.selection import selection_table
from cmmlib.storage.cache import file_digests, whole_file, write_text


def descriptions(file: Path) -> pd.DataFrame:
    """Accuracies per class with class names, `before`, and with descriptions, `after`; fractions."""
    table = pd.read_csv(file)
    return pd.DataFrame({"before": table["clip_standard"] / 100, "after": table["dclip_gpt3"] / 100})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("cub", type=Path)
    args = parser.parse_args()
    accuracies = published.read_published(args.clone)
    models = with_sizes(published.model_table(accuracies))
    tables = {
        "models": models,
        "agreement": published.agreement_table(accuracies),
        "frequency": published.frequency_table(accuracies, published.read_counts(args.clone)),
        "selection": selection_table(descriptions(args.cub)),
        "curves": published.curve_table(accuracies),
        "lowest": published.lowest_table(accuracies, published.nearest_to(models.round(4))),
    }
    for name, table in tables.items():
        file = published.TABLES / f"{name}.csv"
        with whole_file(file) as temporary:
            table.round(4).to_csv(temporary, index=False, lineterminator="\n")
        print(f"{file}: {len(table)} rows")
    write_text(REGISTRY, registry(args.clone))


def registry(clone: Path) -> str:
    """A line a file: its path in the repository and its SHA-256."""
    lines = []
    for folder, pattern in (("zero_shot_evaluations", "*_results.json"), ("search_counts", "*_search_counts.json")):
        for path in sorted(clone.rglob(pattern), key=lambda path: path.name):
            if folder != "search_counts" or path.name.endswith(published.COUNT_ENDINGS):
                lines.append(f"{folder}/{path.name} {file_digests(path.parent, [path])[0]}\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
