"""How outputs are scored: one score a sample, so that two models can be compared sample by sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import DataError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

    Outputs = Mapping[str, Array]

__all__ = ["Metric", "agreement", "top1"]


def argmax_first(outputs: Outputs) -> Array:
    """Predicted class of each sample: argmax of the first output over its last axis; ``[N]`` or ``[N, ...]``."""
    import numpy as np

    prediction: Array = np.asarray(np.argmax(next(iter(outputs.values())), axis=-1))
    return prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A named per-sample score.

    Args:
        name: As it stands in reports, e.g. ``"top-1 accuracy"``.
        score: ``(outputs, targets) -> [N]`` scores, higher is better; ``outputs`` maps output names to ``[N, ...]``.
            The metric is their mean; shares are shown in percent, differences in points (hundredths).
        predict: ``outputs -> [N]`` decisions, whose changes against the float model are counted as flips;
            None where outputs are not decisions (regression).
        against_float: ``targets`` are the float model's predictions instead of labels.
    """

    name: str
    score: Callable[[Outputs, Array], Array]
    predict: Callable[[Outputs], Array] | None = argmax_first
    against_float: bool = False

    def scores(self, outputs: Outputs, targets: Array | None) -> Array:
        """Per-sample scores ``[N]`` as float64, checked.

        Raises:
            DataError: No targets, a wrong number of scores, or a score that is not finite.
        """
        import numpy as np

        if targets is None:
            raise DataError(f"Metric '{self.name}' needs targets, but the evaluation data has None.")
        values: Array = np.asarray(self.score(outputs, targets), np.float64)
        count = next(iter(outputs.values())).shape[0]
        if values.shape != (count,):
            raise DataError(
                f"Metric '{self.name}' returned shape {list(values.shape)} for {count} samples;"
                f" return one score a sample, [{count}]."
            )
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"Metric '{self.name}' returned {values[first]} for sample {first}; a score must be finite.")
        return values


def _equal_class(outputs: Outputs, targets: Array) -> Array:
    import numpy as np

    same: Any = np.equal(argmax_first(outputs), targets)  # numpy types it as one bool or an array
    equal: Array = same.reshape(same.shape[0], -1).all(axis=1)
    return equal


top1 = Metric(name="top-1 accuracy", score=_equal_class)
"""Share of samples whose most probable class is the target class."""

agreement = Metric(name="agreement with float", score=_equal_class, against_float=True)
"""Share of samples whose most probable class is the float model's: needs no labels."""
