"""Where the warm-up of a series of latencies ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["FEWEST_FOR_DETECTION", "steady_start"]

FEWEST_FOR_DETECTION = 40
_BATCH = 5
_MOST_BATCHES = 200
_TAIL_BATCHES = 5
_ROUNDING = 1e-12


def steady_start(values: Array) -> int | None:
    """Index where the steady state begins, by the marginal standard error rule MSER-5.

    The series is cut into batches of five; of all places to cut off the beginning, the one is taken that leaves the
    rest with the smallest standard error of its mean (White 1997, "An effective truncation heuristic for bias reduction
    in simulation output"; batches of five: White, Cobb & Spratt 2000; larger ones in a series of over a thousand). Batches
    are represented by their medians, so that a few interrupted inferences are no change of state. The last five batches
    are not tried: too few to judge by.

    Args:
        values: ``[n]`` latencies in the order they were taken.

    Returns:
        The index, or None where no steady state was found: fewer than 40 samples, or the rule would cut off more than
        half (a clock or load that kept changing).

    >>> import numpy as np
    >>> steady_start(np.concatenate([np.linspace(9, 1, 50), np.tile([1.0, 1.1, 0.9], 200)])) in range(35, 60)
    True
    """
    import numpy as np

    if values.size < FEWEST_FOR_DETECTION:
        return None
    size = max(_BATCH, values.size // _MOST_BATCHES)
    count = values.size // size
    batches = np.median(np.asarray(values[: count * size], np.float64).reshape(count, size), axis=1)
    left = np.arange(count, 0, -1, dtype=np.float64)
    centred = batches - batches.mean()  # sums of squares of small numbers lose no digits
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred**2)[::-1])[::-1]
    errors = np.maximum(squares - sums**2 / left, 0.0) / left**2
    tried = errors[: count - _TAIL_BATCHES]
    best = int(np.argmax(tried <= tried.min() + _ROUNDING * errors[0]))  # the first of those that only rounding tells apart
    return best * size if best <= count // 2 else None
