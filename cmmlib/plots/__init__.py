"""Every figure of the book, one function each; a module a chapter.

A figure has one message, said in its title. Fractions go in, percent are drawn. The figure's label is its alt text.
`worst` is always a mask of the classes in the true worst set.
"""

from cmmlib.plots.blazon import accuracy_by_name, gallery, training_course
from cmmlib.plots.cmm import (
    class_margins,
    cmm_against_accuracy,
    one_margin,
    prompt_scores,
    retrieved_images,
    score_grid,
    worst_found,
)
from cmmlib.plots.phenomenon import (
    class_accuracy_curve,
    prediction_mass,
    worst_bracket,
    worst_confusions,
    worst_gallery,
)
from cmmlib.plots.repair import (
    contenders_plane,
    described_classes,
    described_counts,
    sensitivity_grid,
    weight_map,
    who_gains,
)
from cmmlib.plots.scale import scaling

__all__ = [
    "accuracy_by_name",
    "class_accuracy_curve",
    "class_margins",
    "cmm_against_accuracy",
    "contenders_plane",
    "described_classes",
    "described_counts",
    "gallery",
    "one_margin",
    "prediction_mass",
    "prompt_scores",
    "retrieved_images",
    "scaling",
    "score_grid",
    "sensitivity_grid",
    "training_course",
    "weight_map",
    "who_gains",
    "worst_bracket",
    "worst_confusions",
    "worst_found",
    "worst_gallery",
]
