"""What stands before every public function: numpy arrays become tensors, and arguments are what its signature says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import as_number, as_tensor, require_type, require_unit_rows, type_hints
from cmmlib.functional._ranges import require_ranges, require_same_axes
from cmmlib.functional.checks import check_embeddings

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
ROWS = {"image_features", "text_features", "classifier", "others", "base"}  # what is compared by its angles
NO_COSINES = {"duplicate_classes", "fit_linear_probe", "linear_probe_accuracy", "visual_confusability"}
SMALL_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32}
ON_ANY_DEVICE = frozenset(
    {
        *("similarity_pass", "class_matching_margin", "scale_free_cmm", "predicted_count", "mean_top_probability"),
        *("accuracy_estimate", "rank_classes", "prompt_scores", "fill_undefined", "predict"),
        *("candidate_cmm", "weigh_candidates", "combine_candidates", "cmm_ensemble", "uniform_mean", "uniform_weights"),
        *("fit_candidate_weights", "fitted_ensemble", "weigh_prompts", "replace_classes", "check_embeddings"),
        *("match_prior", "apply_bias", "fit_prior_matching", "fit_prototypes", "fit_gaussians"),
        *("zpe", "autoclip", "carprt", "carprt_of_candidates"),
        *("mean_centred", "z_scored", "label_shift_em", "frolic", "inmap", "transclip", "nearest_images"),
        *("class_mean_margin", "cmm_by_labels", "nearest_text_distance", "rivals", "top_rivals", "margins_of_class"),
        *("predict_with_confidence", "class_confidence", "most_confident", "most_confident_by_class"),
        *("coverage_for_risk", "class_accuracy", "floored", "zero_classes"),
        *("worst_at_k", "worst_classes", "true_worst"),
    }
)


def taking_arrays(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The same function for numpy arrays too; it refuses tensors of a GPU where it could not compute with them, and
    arguments that are not what its signature says."""
    signature = inspect.signature(function)
    numbers = {name for name, parameter in signature.parameters.items() if parameter.annotation == "float"}

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = {key: prepare(value) for key, value in kwargs.items()}
        values = tuple(map(prepare, args))
        try:
            bound = signature.bind(*values, **given)
        except TypeError:  # an argument too few or too many: the function itself says so
            return function(*values, **given)  # type: ignore
        check(bound.arguments)
        return function(*bound.args, **bound.kwargs)

    def prepare(value: Any) -> Any:
        value = as_tensor(value, function.__name__)
        if isinstance(value, Tensor) and value.device.type != "cpu" and function.__name__ not in ON_ANY_DEVICE:
            raise InputError(f"{function.__name__} runs on the processor, got a tensor on {value.device}: pass x.cpu()")
        if isinstance(value, Tensor) and value.dtype in SMALL_INTEGERS:
            return value.long()  # as an index, torch takes uint8 for a mask
        return value

    def check(arguments: dict[str, Any]) -> None:
        hints = type_hints(function)
        for name, value in arguments.items():
            require_type(value, hints.get(name), f"{function.__name__}: {name}")
        for name in numbers & arguments.keys():
            arguments[name] = as_number(arguments[name])
        require_ranges(arguments, function.__name__)
        require_same_axes(arguments, hints, function.__name__)
        require_rows = check_embeddings if function.__name__ in NO_COSINES else require_unit_rows
        for name in sorted(ROWS & arguments.keys()):
            require_rows(arguments[name], f"{function.__name__}: {name}")

    return call
