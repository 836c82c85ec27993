"""Is a converted file still the program it was made from? Judged on the golden inputs before it leaves.

Compilers have silent errors: litert-torch 0.10 drops a transpose in multi-query attention, coremltools 9 corrupts some palettes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Arithmetic", "difference_in_words"]

Arithmetic = Literal["float32", "float16", "int8"]
"""What a file computes in, as far as its rounding goes."""

_LARGEST_SHARE = {"float32": 1e-3, "float16": 5e-2}
"""Largest difference as a share of the largest value. Another order of summation costs about 1e-6; half precision has 11 bits."""
_LEAST_DB = 3.0
"""Least signal-to-noise ratio of an int8 file. Rounding differences that grow through 50 layers leave about 14 dB."""
_LEAST_EQUAL = {"float32": 0.99, "float16": 0.5, "int8": 0.5}
"""Least share of equal values of an output that is a count, an index or a class; ties may fall either way."""


def difference_in_words(found: Sequence[Array], expected: Sequence[Array], *, arithmetic: Arithmetic) -> str:
    """What is wrong with the answers of a file; empty where nothing is.

    Args:
        found: One output for each golden sample, real values.
        expected: The program's.
        arithmetic: What the file computes in.

    >>> import numpy as np
    >>> right = [np.array([1.0, -2.0], np.float32)]
    >>> difference_in_words([right[0] + 1e-6], right, arithmetic="float32")
    ''
    >>> difference_in_words([right[0] + 0.5], right, arithmetic="float32")
    'off by 0.25 of the largest value, 0.001 allowed'
    """
    import numpy as np

    if found[0].shape != expected[0].shape:
        return f"its shape is {list(found[0].shape)}, the program's {list(expected[0].shape)}"
    left, right = np.stack(found), np.stack(expected)
    if right.dtype.kind != "f":
        share = float((left == right).mean()) if right.size else 1.0
        least = _LEAST_EQUAL[arithmetic]
        return "" if share >= least else f"{share:.0%} of its values are the program's, at least {least:.0%} expected"
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        noise = np.where(same, 0.0, left.astype(np.float64) - right)
    if not np.isfinite(noise).all():
        return "it holds NaN or infinity where the program's values are finite, or the other way round"
    signal = right[np.isfinite(right)].astype(np.float64)
    if arithmetic == "int8":
        return _ratio_in_words(signal, noise)
    share = float(np.abs(noise).max(initial=0.0)) / max(float(np.abs(signal).max(initial=0.0)), 1e-6)
    limit = _LARGEST_SHARE[arithmetic]
    return "" if share <= limit else f"off by {share:.2g} of the largest value, {limit:g} allowed"


def _ratio_in_words(signal: Array, noise: Array) -> str:
    energy = float((noise**2).sum())
    if energy == 0:
        return ""
    ratio_db = 10 * math.log10(max(float((signal**2).sum()), 1e-30) / energy)
    return "" if ratio_db >= _LEAST_DB else f"signal-to-noise ratio {ratio_db:.1f} dB, at least {_LEAST_DB:g} dB expected"
