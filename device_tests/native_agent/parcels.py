"""A job's inputs as edgekit-runner takes them: one ``.npy`` file an input, every inference a row, in the file's own types."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.feeding import to_file
from edgekit.core.tensors import check_inputs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.tensors import Array, Arrays

__all__ = ["Parcel", "batches", "pack", "stacked"]

_FILE = "input_{}.npy"


@dataclasses.dataclass(frozen=True)
class Parcel:
    """Inputs of one run of the program: files with as many rows as there are inferences.

    Args:
        files: Input name -> ``.npy`` file, ``[inferences, *shape]``.
        count: Inferences.
    """

    files: Mapping[str, Path]
    count: int


def stacked(inputs: Arrays) -> Iterator[dict[str, Array]]:
    """Golden inputs one by one: input name -> ``[S, *shape]`` to S times input name -> ``[*shape]``."""
    for index in range(_count(inputs)):
        yield {name: array[index] for name, array in inputs.items()}


def batches(inputs: Arrays, artifact: Artifact) -> Iterator[dict[str, Array]]:
    """Evaluation inputs ``[N, ...]`` in the file's own batch size; the last batch is filled by repetition."""
    import numpy as np

    size = artifact.inputs[0].shape[0] if artifact.inputs[0].shape else 1
    count = _count(inputs)
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield {name: array[rows] for name, array in inputs.items()}


def pack(calls: Iterator[dict[str, Array]], count: int, *, artifact: Artifact, folder: Path) -> list[Parcel]:
    """Write inferences' inputs into files as the artifact takes them; values never lie in memory twice.

    Args:
        calls: The program's inputs of every inference.
        count: How many there are.
        artifact: Says how its inputs look.
        folder: Where the files go, in a folder each parcel.

    Returns:
        One parcel; a further one for each change of an input's shape on the way.

    Raises:
        DataError: The file cannot take the values: a name, type or shape is wrong.
    """
    found: list[Parcel] = []
    given = (to_file(call, artifact) for call in calls)
    for number, (_, group) in enumerate(itertools.groupby(given, key=_form)):
        found.append(_write(group, count - sum(parcel.count for parcel in found), artifact, folder / str(number)))
    return found


def _write(group: Iterator[dict[str, Array]], most: int, artifact: Artifact, folder: Path) -> Parcel:
    import numpy as np

    folder.mkdir(parents=True)
    files: dict[str, Path] = {}
    arrays: dict[str, Array] = {}
    count = 0
    for call in group:
        check_inputs(call, artifact.inputs)
        for index, spec in enumerate(artifact.inputs):
            values = call[spec.name]
            if count == 0:
                files[spec.name] = folder / _FILE.format(index)
                shape = (most, *values.shape)
                arrays[spec.name] = np.lib.format.open_memmap(files[spec.name], mode="w+", dtype=values.dtype, shape=shape)
            arrays[spec.name][count] = values
        count += 1
    for name, array in arrays.items():
        array.flush()  # type: ignore[attr-defined]  # a memmap
        if count < most:  # the shape changes after this: the rows behind are another parcel's
            np.save(files[name], np.array(array[:count]))
    return Parcel(files, count)


def _form(call: Arrays) -> tuple[object, ...]:
    return tuple((name, str(values.dtype), values.shape) for name, values in sorted(call.items()))


def _count(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))
