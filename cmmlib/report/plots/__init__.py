"""Every figure of the book, one function each; a module a chapter.

A figure has one message, said in its title. Fractions go in, percent are drawn. The figure's label is its alt text.
`worst` is always a mask of the classes in the true worst set.
"""

from cmmlib.report.plots.anatomy import causes_of_failure, recovery, repair_plane
from cmmlib.report.plots.backbones import classes_in_two, gains_by_run, runs_curves
from cmmlib.report.plots.blazon import accuracy_by_name, gallery, shields, training_course
from cmmlib.report.plots.cmm import (
    class_margins,
    cmm_against_accuracy,
    one_margin,
    prompt_scores,
    retrieved_images,
    score_grid,
    worst_found,
)
from cmmlib.report.plots.methods import compare_methods
from cmmlib.report.plots.phenomenon import (
    class_accuracy_curve,
    prediction_mass,
    worst_bracket,
    worst_confusions,
    worst_gallery,
)
from cmmlib.report.plots.published import (
    accuracy_over_computation,
    agreement,
    better_prompts,
    name_frequency,
    overall_and_worst,
    two_curves_of_classes,
)
from cmmlib.report.plots.repair import described_classes, sensitivity_grid, two_curves, weight_map, who_gains
from cmmlib.report.plots.scale import scaling
from cmmlib.report.plots.unlabelled import (
    cost_of_imbalance,
    hub_and_under_predicted,
    predicted_counts,
    risk_over_coverage,
)

__all__ = [
    "accuracy_by_name",
    "accuracy_over_computation",
    "agreement",
    "better_prompts",
    "causes_of_failure",
    "class_accuracy_curve",
    "class_margins",
    "classes_in_two",
    "cmm_against_accuracy",
    "compare_methods",
    "cost_of_imbalance",
    "described_classes",
    "gains_by_run",
    "gallery",
    "hub_and_under_predicted",
    "name_frequency",
    "one_margin",
    "overall_and_worst",
    "predicted_counts",
    "prediction_mass",
    "prompt_scores",
    "recovery",
    "repair_plane",
    "retrieved_images",
    "risk_over_coverage",
    "runs_curves",
    "scaling",
    "score_grid",
    "sensitivity_grid",
    "shields",
    "training_course",
    "two_curves",
    "two_curves_of_classes",
    "weight_map",
    "who_gains",
    "worst_bracket",
    "worst_confusions",
    "worst_found",
    "worst_gallery",
]
