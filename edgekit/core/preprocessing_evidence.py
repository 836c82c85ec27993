"""Do values look as their declared preprocessing makes them, or as another one would?

Pictures and 16-bit sound are whole numbers before they are normalised. Undoing the declared normalisation must give whole
numbers again; where it does not, and undoing another one does, it is plain what went wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.core.raw_data import Preprocessing

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["WHOLE", "find_fault", "variants"]

WHOLE = 0.02
"""Largest distance from a whole raw value that rounding in float32 explains; raw values have steps of 1."""
_FEWEST_VALUES = 16
"""So many different values it takes to tell one normalisation from another."""
_SLACK = 0.1
"""Of the declared range: pictures that were resampled after they became floats overshoot."""


def variants(record: Preprocessing) -> dict[str, Preprocessing]:
    """What is done in place of the declared normalisation, by mistake: words -> the record of that."""
    mean, std, scale = record.mean, record.std, record.scale
    count = max(len(mean), len(std))
    means, stds = (values * (count if len(values) == 1 else 1) for values in (mean, std))
    twice = tuple(m * scale + m * s for m, s in zip(means, stds, strict=True))
    low, high = record.limits
    made: dict[str, dict[str, Any]] = {
        "not normalised at all": {"scale": 1.0, "mean": (0.0,), "std": (1.0,)},
        "scaled, but without mean and std": {"mean": (0.0,), "std": (1.0,)},
        "normalised twice": {"scale": scale * scale, "mean": twice, "std": tuple(s * s for s in stds)},
        "normalised with mean and std of the channels in reverse order": {"mean": mean[::-1], "std": std[::-1]},
        "scaled to 0 to 1": {"scale": 1 / high, "mean": (0.0,), "std": (1.0,)},
        "scaled to -1 to 1": {"scale": 2 / (high - low), "mean": ((high + low) / (high - low),), "std": (1.0,)},
    }
    found = {words: record.replace(**changes) for words, changes in made.items()}
    return {words: other for words, other in found.items() if _numbers(other) != _numbers(record)}


def find_fault(record: Preprocessing, prepared: Array) -> str:
    """Why prepared values are not what the record makes of raw ones; empty where they may be.

    Args:
        record: The declaration.
        prepared: Model inputs ``[N, ...]``.
    """
    import numpy as np

    if len(np.unique(prepared[:2])) < _FEWEST_VALUES:
        return ""
    if record.raw_dtype != "float32":
        if record.recover(prepared)[1] <= WHOLE:
            return ""
        for words, other in variants(record).items():
            if other.recover(prepared)[1] <= WHOLE:
                return f"its values are {words}"
    values = record.unlaid(prepared)
    values = values.reshape(-1, values.shape[-1])
    low, high = (np.array(ends) for ends in record.bounds())
    beyond = np.maximum(values.max(0) - high, low - values.min(0)) / (high - low)
    at = int(np.argmax(beyond))
    if beyond[at] <= _SLACK:
        return ""
    return (
        f"channel {at} reaches from {values[:, at].min():.3g} to {values[:, at].max():.3g}, the declaration allows"
        f" {low[at]:.3g} to {high[at]:.3g}"
    )


def _numbers(record: Preprocessing) -> tuple[object, ...]:
    return record.scale, record.mean, record.std
