"""What choosing the worst classes does to a gain, on accuracies per class before and after a change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def selection_table(descriptions: pd.DataFrame) -> pd.DataFrame:
    """What choosing the worst classes does to a gain: the same classes before and after, chosen by either of the two.

    Args:
        descriptions: a row a class, its accuracy `before` and `after` (fractions).

    Returns:
        A row for each of the worst 10, 20 and 50 classes and the best 50, with all classes that tie with the last:
        `lowest_before` and `lowest_after` (worst@k or best@k, each of its own classes); `before` and `followed` of the
        `classes` chosen before; `after` of the `classes_after` chosen after, and `traced_back`, what they had before.
    """
    before, after = descriptions["before"].to_numpy(float), descriptions["after"].to_numpy(float)
    rows = []
    for kind, k, sign in (("worst", 10, 1), ("worst", 20, 1), ("worst", 50, 1), ("best", 50, -1)):
        if k > len(descriptions):
            continue
        ends = {end: np.sort(sign * values)[:k] for end, values in (("before", before), ("after", after))}
        chosen, chosen_after = sign * before <= ends["before"][-1], sign * after <= ends["after"][-1]
        row: dict[str, Any] = {"set": f"{kind} {k}"}
        row |= {f"lowest_{end}": float(sign * values.mean()) for end, values in ends.items()}
        row |= {"classes": int(chosen.sum()), "before": before[chosen].mean(), "followed": after[chosen].mean()}
        back = {"after": after[chosen_after].mean(), "traced_back": before[chosen_after].mean()}
        rows.append({**row, "classes_after": int(chosen_after.sum()), **back})
    return pd.DataFrame(rows)
