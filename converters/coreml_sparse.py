"""Sparse weights in a Core ML package: a bit mask and the values left (``constexpr_sparse_to_dense``, iOS 16 and later)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["sparse_weights", "store_sparse"]

_LEAST_ZEROS = 0.4
"""Share of zeros from which a weight is stored sparse: below, little is won for a tensor that must be unpacked."""
_FEWEST_VALUES = 512  # a mask, an offset and an operator of its own cost more than small tensors save
_ZERO = 1e-12  # what counts as zero: nothing but zero does, coremltools wants a threshold above it


def sparse_weights(program: ExportedProgram) -> tuple[str, ...]:
    """Float weights of which enough values are zero, by name."""
    return tuple(
        name
        for name, weight in program.state_dict.items()
        if weight.is_floating_point()
        and weight.ndim > 1
        and weight.numel() > _FEWEST_VALUES
        and float((weight == 0).double().mean()) >= _LEAST_ZEROS
    )


def store_sparse(model: Any) -> Any:
    """The model with such weights stored as masks and values; the others as they were."""
    from coremltools.optimize import coreml

    chosen = coreml.OpThresholdPrunerConfig(
        threshold=_ZERO, minimum_sparsity_percentile=_LEAST_ZEROS, weight_threshold=_FEWEST_VALUES
    )
    return coreml.prune_weights(model, config=coreml.OptimizationConfig(global_config=chosen))
