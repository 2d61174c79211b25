"""The sentences of the chapter on published accuracies."""

import pandas as pd

from cmmlib.report.findings import real_clip


def test_a_larger_model_with_lower_worst_classes_is_counted():
    rows = [
        ("ViT-B-32", "a", 100, 0.5, 0.01),
        ("ViT-B-16", "a", 200, 0.6, 0.07),
        ("ViT-L-14", "a", 400, 0.7, 0.05),
        ("ViT-B-32", "b", 100, 0.4, 0.0),
        ("ViT-L-14", "b", 400, 0.5, 0.0),
    ]
    models = pd.DataFrame(rows, columns=["backbone", "pretrained", "parameters", "overall", "worst_10"])
    told = real_clip.scale(models)
    assert "Over the 3 steps from one size to the next, the worst 10 rise in 1 and fall in 1." in told
