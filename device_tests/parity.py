"""How far two answers are apart: signal-to-noise ratio, quantization steps, share of equal values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgekit.core.contract import QuantizationContract
from edgekit.core.validation import LayerParity, OutputParity, Spread

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = ["decibels", "layer_parity", "output_parity", "snr_db", "spread"]

_LARGEST_COUNTED_STEP = 8
_FLOOR_DB = -200.0


def decibels(signal: float, noise: float) -> float | None:
    """``10 log10(signal / noise)`` of two energies; None without noise, -200 at least.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0), decibels(0.0, 1.0)
    (20.0, None, -200.0)
    """
    if noise == 0:
        return None
    return max(10 * math.log10(signal / noise), _FLOOR_DB) if signal > 0 else _FLOOR_DB


def snr_db(values: Array, reference: Array) -> float | None:
    """Signal-to-noise ratio of ``values`` against ``reference``, same shape; None where they are equal."""
    import numpy as np

    expected = np.asarray(reference, np.float64)
    noise = np.asarray(values, np.float64) - expected
    return decibels(float(np.vdot(expected, expected)), float(np.vdot(noise, noise)))


def output_parity(outputs: Arrays, reference: Arrays, *, scales: Mapping[str, float]) -> tuple[OutputParity, ...]:
    """One comparison for each output.

    Args:
        outputs: Output name -> ``[S, *shape]``.
        reference: The same from the program.
        scales: Quantization scale of each output that has one.
    """
    import numpy as np

    found = []
    for name, expected in reference.items():
        difference = np.abs(np.asarray(outputs[name], np.float64) - np.asarray(expected, np.float64))
        largest = float(difference.max(initial=0.0))
        found.append(
            OutputParity(
                output=name,
                snr_db=snr_db(outputs[name], expected),
                largest_difference=largest,
                largest_steps=round(largest / scales[name]) if name in scales else None,
                exact_share=float((difference == 0).mean()) if difference.size else 1.0,
            )
        )
    return tuple(found)


def layer_parity(contract: QuantizationContract, recorded: Arrays, replayed: Arrays) -> tuple[LayerParity, ...]:
    """Each replayed layer against the program's own integers, in program order.

    Args:
        contract: Names the layers.
        recorded: Activation entry -> the program's integers ``[S, *shape]``.
        replayed: Activation entry -> the file's answer on the same grid.
    """
    import numpy as np

    found = []
    for entry in contract.activations:
        if entry.role == "input" or entry.name not in replayed:
            continue
        steps = np.abs(replayed[entry.name].astype(np.int64) - recorded[entry.name].astype(np.int64))
        counts = np.bincount(np.minimum(steps, _LARGEST_COUNTED_STEP).ravel(), minlength=2)
        found.append(
            LayerParity(
                entry=entry.name,
                op=entry.op,
                value_count=steps.size,
                exact_share=float(counts[0] / max(steps.size, 1)),
                within_one_share=float(counts[:2].sum() / max(steps.size, 1)),
                largest_steps=int(steps.max(initial=0)),
                difference_counts=tuple(int(count) for count in counts),
            )
        )
    return tuple(found)


def spread(first: tuple[str, Arrays], second: tuple[str, Arrays], *, predict: Callable[[Arrays], Array] | None = None) -> Spread:
    """How far two executors of the same integers are from each other.

    Args:
        first: Name and outputs, output name -> ``[N, ...]``.
        second: Likewise.
        predict: Outputs -> ``[N]`` or ``[N, ...]`` decisions; None where outputs are no decisions.
    """
    import numpy as np

    (first_name, one), (second_name, other) = first, second
    flat = [np.concatenate([np.asarray(outputs[name], np.float64).ravel() for name in one]) for outputs in (one, other)]
    count = len(next(iter(one.values())))
    changed = changed_decisions(one, other, predict) if predict else None
    return Spread(
        first=first_name,
        second=second_name,
        snr_db=snr_db(flat[1], flat[0]),
        identical_share=float((flat[0] == flat[1]).mean()) if flat[0].size else 1.0,
        disagreement_share=float(changed.mean()) if changed is not None else None,
        sample_count=count,
    )


def changed_decisions(one: Arrays, other: Arrays, predict: Callable[[Arrays], Array]) -> Array:
    """``[N]`` bool: the decision on that sample differs (anywhere in it, where a sample holds several)."""
    import numpy as np

    decisions = np.asarray(predict(one)), np.asarray(predict(other))
    differs: Array = (decisions[0] != decisions[1]).reshape(decisions[0].shape[0], -1).any(axis=1)
    return differs
