"""Do the outputs of a file agree with those of the program it was made from?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["FLOAT_LIMIT", "INTEGER_LIMIT_DB", "INTEGER_SHARE", "compare", "snr_db"]

FLOAT_LIMIT = 1e-3
"""Largest difference of a float file's output, as a share of that output's largest value."""
INTEGER_LIMIT_DB = 10.0
"""Least signal-to-noise ratio of an int8 file's output beside the program of the same integers."""
INTEGER_SHARE = 0.5
"""Least share of equal values of an integer output (an order, a class) of an int8 file; of a float file, all are equal."""


def compare(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], *, is_float: bool) -> dict[str, Any]:
    """The worst of all outputs: ``is_same``, ``relative_error`` (float), ``snr_db``, ``equal_share`` (integers), and ``problem``.

    Args:
        found: Output name -> ``[S, *shape]``.
        expected: The same from the program.
        is_float: Judge by the limit of float files.
    """
    error, ratio, share, problems = 0.0, math.inf, 1.0, []
    for name, right in expected.items():
        left = found[name]
        if left.shape != right.shape:
            problems.append(f"{name} has shape {list(left.shape[1:])}, expected {list(right.shape[1:])}")
            continue
        if right.dtype.kind != "f":
            equal = float((left == right).mean())
            share = min(share, equal)
            if equal < (1.0 if is_float else INTEGER_SHARE):
                problems.append(f"{name}: {equal:.0%} of integers equal")
            continue
        off = _relative_error(left, right)
        noise = snr_db(left, right)
        error, ratio = max(error, off), min(ratio, noise)
        if is_float and not off <= FLOAT_LIMIT:
            problems.append(f"{name}: off by {off:.2g} of the largest value")
        if not is_float and not noise >= INTEGER_LIMIT_DB:
            problems.append(f"{name}: {noise:.1f} dB")
    return {
        "is_same": not problems,
        "problem": "; ".join(problems),
        "relative_error": _finite(error),
        "snr_db": None if math.isinf(ratio) else ratio,
        "equal_share": share,
    }


def snr_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Energy of what is expected over energy of the difference, in decibels; infinite where they are equal."""
    signal = expected.astype(np.float64)
    noise = found.astype(np.float64) - signal
    energy = float((noise**2).sum())
    if not math.isfinite(energy):
        return -math.inf
    return math.inf if energy == 0 else 10 * math.log10(max(float((signal**2).sum()), 1e-30) / energy)


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    apart = np.abs(found.astype(np.float64) - expected)
    if not np.isfinite(apart).all():
        return math.inf
    return float(apart.max(initial=0.0)) / max(float(np.abs(expected).max(initial=0.0)), 1e-6)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
