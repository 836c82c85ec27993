"""Small weights in a Core ML program: constants become ``constexpr`` operations, decoded when the model is loaded.

============== ================================================ ======================================
weights        from iOS 18                                      before
============== ================================================ ======================================
int8           ``constexpr_blockwise_shift_scale``, int8        ``constexpr_affine_dequantize`` (iOS 16)
int4           ``constexpr_blockwise_shift_scale``, int4        the same, in int8
blocks         ``constexpr_blockwise_shift_scale``              none
float16        ``constexpr_cast``                               ``constexpr_cast`` (iOS 16)
============== ================================================ ======================================

coremltools' own weight compression rounds weights anew; here the integers are the contract's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgekit.converters.weights import SmallWeight

__all__ = ["PASS", "storing"]

PASS = "edgekit::store_weights"
"""Name of the graph pass; it runs last, when coremltools has given every constant its final form."""

_FOUR_BITS_IOS = 18


def storing(weights: Sequence[SmallWeight], *, ios: int) -> Any:
    """A graph pass that replaces the constants in which the weights are found.

    Args:
        weights: What to store.
        ios: Lowest iOS the package is for.
    """
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass

    class StoreWeights(AbstractGraphPass):  # type: ignore[misc]  # coremltools has no types
        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                for operation in list(function.operations):
                    if operation.op_type == "const":
                        _replace(function, operation, weights, ios)

    return StoreWeights()


def _replace(function: Any, operation: Any, weights: Sequence[SmallWeight], ios: int) -> None:
    value = operation.outputs[0].val
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim < len("OI"):
        return
    found = [(weight, order) for weight in weights if (order := weight.axes(value)) is not None]
    if not found or (found[0][0].entry.dtype == "float16" and value.dtype == np.float16):
        return
    weight, order = found[0]
    with function:
        stored = _store(weight, order, operation, value.dtype, ios)
    function.replace_uses_of_var_after_op(
        anchor_op=operation, old_var=operation.outputs[0], new_var=stored, no_check_var_types=True
    )
    function.remove_ops([operation])


def _store(weight: SmallWeight, order: Sequence[int], operation: Any, dtype: Any, ios: int) -> Any:
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    build: Any = Builder
    place: dict[str, Any] = {"before_op": operation, "name": f"{operation.name}_stored"}
    data = np.ascontiguousarray(weight.stored.transpose(order))
    if weight.entry.dtype == "float16":
        return build.constexpr_cast(source_val=data, output_dtype="fp32", **place)
    scales = np.ascontiguousarray(weight.scales.transpose(order)).astype(dtype)
    if ios >= _FOUR_BITS_IOS:
        small = types.nptype_from_builtin(types.int4 if weight.entry.dtype == "int4" else types.int8)
        return build.constexpr_blockwise_shift_scale(data=data.astype(small), scale=scales, **place)
    axis = list(order).index(weight.entry.channel_axis or 0)
    return build.constexpr_affine_dequantize(
        quantized_data=data, zero_point=np.int8(0), scale=scales.reshape(-1), axis=np.int32(axis), **place
    )
