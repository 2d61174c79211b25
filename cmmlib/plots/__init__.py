"""Every figure of the book, one function each; a module a chapter.

A figure has one message, said in its title. Fractions go in, percent are drawn. The figure's label is its alt text.
`worst` is always a mask of the classes in the true worst set.
"""

from cmmlib.plots.cmm import class_margins, cmm_against_accuracy, one_margin, prompt_scores, score_grid, worst_found
from cmmlib.plots.phenomenon import (
    class_accuracy_curve,
    prediction_mass,
    worst_bracket,
    worst_confusions,
    worst_gallery,
)

__all__ = [
    "class_accuracy_curve",
    "class_margins",
    "cmm_against_accuracy",
    "one_margin",
    "prediction_mass",
    "prompt_scores",
    "score_grid",
    "worst_bracket",
    "worst_confusions",
    "worst_found",
    "worst_gallery",
]
