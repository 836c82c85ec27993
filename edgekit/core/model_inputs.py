"""Inputs for a model file as a person gives them: one ``.npz``, a ``.npy`` for each name, or none at all."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, TensorSpec

__all__ = ["draw_inputs", "pick_inputs", "read_arrays", "split_samples"]

_BYTES = ("int8", "uint8")


def draw_inputs(specs: Sequence[TensorSpec], *, seed: int = 0) -> dict[str, Array]:
    """One sample drawn at random: standard normal floats, bytes over their whole range, 0 or 1 for other integers."""
    import numpy as np

    draw, made = np.random.default_rng(seed), {}
    for spec in specs:
        if spec.dtype.startswith("float"):
            made[spec.name] = draw.standard_normal(spec.shape).astype(spec.dtype)
        elif spec.dtype in _BYTES:
            ends = np.iinfo(spec.dtype)
            made[spec.name] = draw.integers(ends.min, ends.max, spec.shape, endpoint=True).astype(spec.dtype)
        else:
            made[spec.name] = draw.integers(0, 2, spec.shape).astype(spec.dtype)
    return made


def pick_inputs(specs: Sequence[TensorSpec], given: Mapping[str, Array] | None, *, of: str, seed: int = 0) -> dict[str, Array]:
    """One sample for a model: the given arrays, or numbers drawn at random where there are none.

    Args:
        specs: What the model takes.
        given: Input name -> ``[*shape]``, or ``[S, *shape]``, of which the first sample is taken.
        of: The model's file, for messages.
        seed: Of the random numbers.

    Raises:
        DataError: A name is unknown, an input is missing, or there is no sample.
    """
    return draw_inputs(specs, seed=seed) if given is None else split_samples(specs, given, of=of)[0]


def split_samples(specs: Sequence[TensorSpec], given: Mapping[str, Array], *, of: str) -> list[dict[str, Array]]:
    """Samples for a model, from arrays with or without an axis of samples in front; what else is wrong with them, the model says.

    Args:
        specs: What the model takes.
        given: Input name -> ``[*shape]`` or ``[S, *shape]``.
        of: The model's file, for messages.

    Raises:
        DataError: A name is unknown, an input is missing, or the numbers of samples differ.
    """
    import numpy as np

    known = [spec.name for spec in specs]
    for name in given:
        if name not in known:
            raise DataError(f"{of} has no input '{name}'; its inputs are {', '.join(known)}.{nearest(name, known)}")
    if missing := [name for name in known if name not in given]:
        raise DataError(f"{of} needs the input '{missing[0]}' too; given are {', '.join(given) or 'none'}.")
    stacked = {spec.name: given[spec.name].ndim == len(spec.shape) + 1 for spec in specs}
    counts = {name: len(given[name]) for name, is_stacked in stacked.items() if is_stacked}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise DataError(f"The inputs for {of} hold {counts} samples; each needs the same number of samples, at least one.")
    count = next(iter(counts.values()), 1)
    return [
        {name: np.ascontiguousarray(given[name][at] if stacked[name] else given[name]) for name in known} for at in range(count)
    ]


def read_arrays(words: Sequence[str]) -> dict[str, Array] | None:
    """Arrays from a command line's ``FILE.npz`` and ``NAME=FILE.npy``; None where nothing is given.

    Raises:
        UsageError: A word is neither, or a name is given twice.
        DataError: A file is missing or damaged, or holds Python objects.
    """
    found: dict[str, Array] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals:
            arrays = _read(Path(word))
        else:
            read = _read(Path(file))
            if list(read) != [""]:
                raise UsageError(f"{file} holds several arrays, {', '.join(read)}: give it without '{name}='.")
            arrays = {name: read[""]}
        if "" in arrays:
            raise UsageError(f"{word} is one array without a name; write NAME={word}.")
        for taken in arrays.keys() & found.keys():
            raise UsageError(f"The input '{taken}' is given twice.")
        found |= arrays
    return found or None


def _read(path: Path) -> dict[str, Array]:
    """The arrays of a file by name; a lone one under the name ``""``."""
    import numpy as np

    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return {"": stored}
        with stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError as reason:
        raise DataError(f"{path} does not exist.") from reason
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as reason:
        words = " ".join(str(reason).split())
        raise DataError(f"{path} is no file of plain arrays: {words}. Write one with numpy.savez or numpy.save.") from reason
