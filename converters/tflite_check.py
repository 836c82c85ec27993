"""A converted file against the program it was made from, on the golden inputs.

Compilers have silent errors (a transpose dropped in multi-query attention, say), so no file leaves unchecked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.converters.tflite_values import answer_golden
from edgekit.converters.weights import precision_of
from edgekit.core.errors import ConversionError

if TYPE_CHECKING:
    from edgekit.converters.tflite_values import Evidence
    from edgekit.core.artifact import ExportOptions
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["check_outputs"]

FLOAT_LIMIT = 1e-3
"""Largest difference of a float file's outputs, as a share of the largest output. Another order of summation costs about 1e-6."""
INTEGER_LIMIT_DB = 3.0
"""Least signal-to-noise ratio of an int8 file's outputs. Rounding differences that grow through 50 layers leave about 14 dB."""
INTEGER_LIMIT_SHARE = 0.5
"""Least share of equal values of an integer output (a class index, say)."""
WRONG_LAYER = 0.5
"""A layer whose difference has this share of its value's energy is where a file goes wrong."""


def check_outputs(
    data: bytes,
    compressed: Compressed,
    *,
    evidence: Evidence | None,
    tensors: Mapping[str, int],
    options: ExportOptions | None = None,
) -> None:
    """Run the file on the golden inputs and compare.

    Args:
        data: The finished file.
        compressed: What it was made from.
        evidence: Every tensor's value, to name the layer where the file goes wrong.
        tensors: Activation entry -> tensor index.
        options: What the file was made with.

    Raises:
        UnsupportedOpError: The runtime has no kernel for an operator of the file.
        ConversionError: The file computes something else.
    """
    found = answer_golden(data, compressed, options=options)
    for name, expected in compressed.golden.outputs.items():
        problem = _problem(found[name], expected, is_float=_computes_float(compressed))
        if problem:
            where = _first_wrong_layer(compressed, evidence, tensors) if evidence else ""
            raise ConversionError(
                f"LiteRT converted '{compressed.name}' without complaint, but output '{name}' is wrong: {problem}.{where}"
                " Rewrite that part of the model (torch.cat instead of expand before a matmul is a known cure), or leave out"
                " the target tflite."
            )


def _computes_float(compressed: Compressed) -> bool:
    """Whether nothing but weights is rounded, so that the file must answer as the program does."""
    contract = compressed.contract
    return not contract.activations and all(precision_of(entry).activations == "float32" for entry in contract.parameters)


def _problem(found: Array, expected: Array, *, is_float: bool) -> str:
    import numpy as np

    if found.shape != expected.shape:
        return f"its shape is {list(found.shape[1:])}, the program's {list(expected.shape[1:])}"
    if expected.dtype.kind != "f":
        share = float((found == expected).mean()) if expected.size else 1.0
        return "" if share >= INTEGER_LIMIT_SHARE else f"only {share:.0%} of its values are the program's"
    noise = found.astype(np.float64) - expected
    if not np.isfinite(noise).all():
        return "it holds NaN or infinity"
    if is_float:
        largest = float(np.abs(expected).max(initial=0.0))
        share = float(np.abs(noise).max(initial=0.0)) / max(largest, 1e-6)
        return "" if share <= FLOAT_LIMIT else f"off by {share:.2g} of the largest value, {FLOAT_LIMIT:g} allowed"
    signal_energy, noise_energy = float((expected.astype(np.float64) ** 2).sum()), float((noise**2).sum())
    if noise_energy == 0:
        return ""
    ratio_db = 10 * math.log10(max(signal_energy, 1e-30) / noise_energy)
    return (
        ""
        if ratio_db >= INTEGER_LIMIT_DB
        else f"signal-to-noise ratio {ratio_db:.1f} dB, at least {INTEGER_LIMIT_DB:g} dB expected"
    )


def _first_wrong_layer(compressed: Compressed, evidence: Evidence, tensors: Mapping[str, int]) -> str:
    from edgekit.converters.tflite_values import program_orders

    for entry in compressed.contract.activations:
        index = tensors.get(entry.name)
        if index is None or index not in evidence.found:
            continue
        orders = program_orders(evidence.found[index].shape, entry.shape)
        distances = [evidence.distance(entry, index, channels_last=order) for order in orders]
        if distances and min(distances) > WRONG_LAYER:
            return f" The first layer that differs is '{entry.name}' ({entry.op}{f', {entry.source}' if entry.source else ''})."
    return ""
