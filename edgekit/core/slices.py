"""Parts of an evaluation set that are judged by themselves: classes, people, cameras, lighting.

A mean hides whom it fails. Each group of slices gives every sample one label; the classes of integer targets are a group without
being asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import DataError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

    Labels = Sequence[Any] | Array | Callable[[Mapping[str, Array], Array | None], Any]

__all__ = ["CLASSES", "read_slices"]

CLASSES = "class"
"""Name of the group that integer targets ``[N]`` make by themselves."""
_MOST_SLICES = 1000


def read_slices(
    declared: Mapping[str, Labels],
    inputs: Mapping[str, Array],
    targets: Array | None,
    *,
    names: Sequence[str] = (),
    task: str = "",
) -> dict[str, Array]:
    """Every sample's label in every group, ``[N]`` text.

    Args:
        declared: Group -> a label for each sample, or a function ``(inputs, targets) -> labels`` of the whole evaluation set.
        inputs: Input name -> ``[N, ...]``.
        targets: ``[N, ...]``, or None.
        names: Class names, for the group the targets make.
        task: Name of the task, for messages.

    Raises:
        DataError: A function fails, or there is not one label for each sample.

    >>> import numpy as np
    >>> read_slices({}, {"x": np.zeros((3, 1))}, np.array([0, 1, 1]), names=["cat", "dog"])
    {'class': array(['cat', 'dog', 'dog'], dtype='<U3')}
    """
    import numpy as np

    count = len(next(iter(inputs.values())))
    found: dict[str, Array] = {}
    if CLASSES not in declared and targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu":
        classes = {value: names[value] if 0 <= value < len(names) else str(value) for value in np.unique(targets).tolist()}
        if 1 < len(classes) <= _MOST_SLICES:
            found[CLASSES] = np.array([classes[value] for value in targets.tolist()])
    for group, labels in declared.items():
        where = f"Task '{task}': slices '{group}'"
        given = _called(labels, inputs, targets, where) if callable(labels) else labels
        made = np.asarray(given)
        if made.shape != (count,):
            raise DataError(f"{where} have shape {list(made.shape)} for {count} evaluation samples; give one label a sample.")
        if np.unique(made).size > _MOST_SLICES:
            raise DataError(f"{where} hold {np.unique(made).size} labels; more than {_MOST_SLICES} are no slices but samples.")
        found[group] = made.astype(np.str_)
    return found


def _called(labels: Callable[..., Any], inputs: Mapping[str, Array], targets: Array | None, where: str) -> Any:
    try:
        return labels(inputs, targets)
    except Exception as reason:
        raise DataError(f"{where}: the function fails on the evaluation set. {type(reason).__name__}: {reason}") from reason
