"""Open axes of a Core ML input: a range for each, or the shapes that are allowed.

Core ML knows one or the other for an input, not both (https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html);
where a model has both, enumerated sizes become the range around them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.core.tensors import TensorSpec

__all__ = ["shape_of", "widened"]

_MOST_SHAPES = 128
"""coremltools refuses more enumerated shapes."""


def shape_of(spec: TensorSpec) -> Any:
    """What coremltools is told of an input's shape."""
    import coremltools

    if not spec.flexible:
        return spec.shape
    axes = {axis.axis: axis for axis in spec.flexible}
    if _is_enumerated(spec):
        choices = [axes[at].sizes if at in axes else (size,) for at, size in enumerate(spec.shape)]
        return coremltools.EnumeratedShapes(shapes=list(itertools.product(*choices)), default=spec.shape)
    ranges = {at: coremltools.RangeDim(axis.minimum, axis.maximum, default=spec.shape[at]) for at, axis in axes.items()}
    return coremltools.Shape(shape=tuple(ranges.get(at, size) for at, size in enumerate(spec.shape)))


def widened(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The specs as the package will have them: only one input may have enumerated shapes (before iOS 18)."""
    several = sum(bool(spec.flexible) and _is_enumerated(spec) for spec in specs) > 1
    return tuple(
        spec
        if _is_enumerated(spec) and not several
        else spec.replace(flexible=tuple(axis.replace(sizes=()) for axis in spec.flexible))
        for spec in specs
    )


def _is_enumerated(spec: TensorSpec) -> bool:
    if not all(axis.sizes for axis in spec.flexible):
        return False
    return math.prod(len(axis.sizes) for axis in spec.flexible) <= _MOST_SHAPES
