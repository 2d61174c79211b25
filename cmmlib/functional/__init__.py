"""Pure functions of tensors: no file, no network, no model, no label unless it is an argument.

    import cmmlib.functional as F

Letters, here and in every signature: N images, C classes, P prompts, D embedding width, k worst classes. Every
function takes numpy arrays where its signature says Tensor, and gives tensors. Those named in `ON_ANY_DEVICE` compute
where their tensors lie; the others refuse what does not lie in the processor's memory.
"""

from types import FunctionType

from cmmlib.functional._arrays import ON_ANY_DEVICE, taking_arrays
from cmmlib.functional.accuracy import (
    ClassAccuracy,
    class_accuracy,
    floored,
    geometric_mean,
    harmonic_mean,
    taken_for,
    zero_classes,
)
from cmmlib.functional.candidates import Candidates, candidate_cmm
from cmmlib.functional.checks import check_embeddings, duplicate_classes
from cmmlib.functional.cmm import (
    ASSIGNMENTS,
    accuracy_estimate,
    class_matching_margin,
    class_mean_margin,
    cmm_by_labels,
    fill_undefined,
    margins_of_class,
    mean_top_probability,
    nearest_text_distance,
    predicted_count,
    prompt_scores,
    rank_classes,
    rivals,
    scale_free_cmm,
    top_rivals,
)
from cmmlib.functional.detection import auroc, detection_scores, spearman
from cmmlib.functional.ensemble import (
    cmm_ensemble,
    combine_candidates,
    replace_classes,
    uniform_weights,
    weigh_candidates,
    weigh_prompts,
)
from cmmlib.functional.fitted_weights import fit_candidate_weights, fitted_ensemble
from cmmlib.functional.gaussians import fit_gaussians
from cmmlib.functional.graph_baselines import nearest_images, transclip, zlap
from cmmlib.functional.intervals import bootstrap_interval, wilson_interval, wilson_intervals
from cmmlib.functional.linear_probe import fit_linear_probe, linear_probe_accuracy, visual_confusability
from cmmlib.functional.prior_matching import Bias, Correction, apply_bias, fit_prior_matching, match_prior
from cmmlib.functional.prompt_baselines import (
    autoclip,
    carprt,
    carprt_of_candidates,
    uniform_mean,
    zpe,
)
from cmmlib.functional.prototypes import fit_prototypes
from cmmlib.functional.resampling import dirichlet_frequencies, few_per_class, long_tailed_frequencies, with_frequencies
from cmmlib.functional.selective import (
    ConfidentPredictions,
    area_under_risk_coverage,
    class_confidence,
    class_risks,
    coverage_for_risk,
    most_confident,
    most_confident_by_class,
    predict_with_confidence,
    risk_coverage,
    worst_risk,
)
from cmmlib.functional.similarity import SimilarityPass, similarity_pass
from cmmlib.functional.transductive_baselines import (
    frolic,
    inmap,
    inmap_images,
    label_shift_em,
    mean_centred,
    otter,
    z_scored,
)
from cmmlib.functional.worst import (
    WORST_KS,
    default_worst_k,
    random_half,
    true_worst,
    worst_at_k,
    worst_classes,
    worst_split_half,
)
from cmmlib.functional.zero_shot import predict

__all__ = [
    "ASSIGNMENTS",
    "ON_ANY_DEVICE",
    "WORST_KS",
    "Bias",
    "Candidates",
    "ClassAccuracy",
    "ConfidentPredictions",
    "Correction",
    "SimilarityPass",
    "accuracy_estimate",
    "apply_bias",
    "area_under_risk_coverage",
    "auroc",
    "autoclip",
    "bootstrap_interval",
    "candidate_cmm",
    "carprt",
    "carprt_of_candidates",
    "check_embeddings",
    "class_accuracy",
    "class_confidence",
    "class_matching_margin",
    "class_mean_margin",
    "class_risks",
    "cmm_by_labels",
    "cmm_ensemble",
    "combine_candidates",
    "coverage_for_risk",
    "default_worst_k",
    "detection_scores",
    "dirichlet_frequencies",
    "duplicate_classes",
    "few_per_class",
    "fill_undefined",
    "fit_candidate_weights",
    "fit_gaussians",
    "fit_linear_probe",
    "fit_prior_matching",
    "fit_prototypes",
    "fitted_ensemble",
    "floored",
    "frolic",
    "geometric_mean",
    "harmonic_mean",
    "inmap",
    "inmap_images",
    "label_shift_em",
    "linear_probe_accuracy",
    "long_tailed_frequencies",
    "margins_of_class",
    "match_prior",
    "mean_centred",
    "mean_top_probability",
    "most_confident",
    "most_confident_by_class",
    "nearest_images",
    "nearest_text_distance",
    "otter",
    "predict",
    "predict_with_confidence",
    "predicted_count",
    "prompt_scores",
    "random_half",
    "rank_classes",
    "replace_classes",
    "risk_coverage",
    "rivals",
    "scale_free_cmm",
    "similarity_pass",
    "spearman",
    "taken_for",
    "top_rivals",
    "transclip",
    "true_worst",
    "uniform_mean",
    "uniform_weights",
    "visual_confusability",
    "weigh_candidates",
    "weigh_prompts",
    "wilson_interval",
    "wilson_intervals",
    "with_frequencies",
    "worst_at_k",
    "worst_classes",
    "worst_risk",
    "worst_split_half",
    "z_scored",
    "zero_classes",
    "zlap",
    "zpe",
]

for _name in __all__:
    if isinstance(globals()[_name], FunctionType):
        globals()[_name] = taking_arrays(globals()[_name])
