"""Channel counts that a target's kernels like: a layer of 50 channels often costs as much time as one of 64."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["aligned", "multiple_for", "wanted_multiple"]

_LEAST_STEPS = 3  # a layer keeps the choice between so many widths at least: else small layers could not be pruned at all


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("alignment.toml").read_text(encoding="utf-8"))


def wanted_multiple(target: str) -> int:
    """The multiple of channels a target's kernels want; 1 where nothing is known.

    >>> wanted_multiple("onnx")
    16
    """
    return int(_table().get(target, {"multiple": 1})["multiple"])


def multiple_for(width: int, multiple: int) -> int:
    """The multiple that fits a layer: halved until the layer has three steps of it.

    >>> multiple_for(64, 16), multiple_for(24, 16), multiple_for(5, 16)
    (16, 8, 1)
    """
    while multiple > 1 and width < _LEAST_STEPS * multiple:
        multiple //= 2
    return multiple


def aligned(removed: int, *, units: int, unit_width: int, multiple: int, most: int) -> int:
    """How many units of a group go, so that the channels left are a multiple.

    Args:
        removed: How many would go if every number were fine.
        units: How many there are.
        unit_width: Channels of one.
        multiple: What the channels that are left shall be a multiple of, where the layer is wide enough.
        most: At most so many go.

    >>> aligned(30, units=96, unit_width=1, multiple=16, most=90)
    32
    """
    if removed <= 0:
        return 0
    wanted = multiple_for(units * unit_width, multiple)
    step = max(1, wanted // unit_width)
    left = units - min(removed, most)
    lower = left // step * step
    options = {lower, lower + step, units}
    fitting = [option for option in options if max(1, units - most) <= option <= units and option >= min(step, units)]
    return units - min(fitting, key=lambda option: (abs(option - left), -option))
