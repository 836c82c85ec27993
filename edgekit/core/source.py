"""A model that comes from a file: what it can be told, and what reading it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import DataError, UsageError, nearest
from edgekit.core.model import Record
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.tensors import Array

__all__ = ["ImportedModel", "OpenInput", "SourceOptions", "random_samples", "read_samples", "settle_inputs"]


class SourceOptions(Record):
    """What a file does not say itself.

    Args:
        name: Name of the model; the file's name where empty.
        factory: ``FILE.py:FUNCTION`` that builds the net a state dict belongs to.
        shapes: Input name -> shape, for inputs whose shape the file leaves open (``[N, C, H, W]``).
        samples: ``.npz`` file of inputs by name: examples and calibration data. Each array is ``[S, *shape]``, or ``[N, ...]``
            with the batch axis of the model first, which is then cut into the model's own batches.
        trust_pickle: Read files that can run code when they are read. Only for files you made yourself.
        constants: Input name -> its one number: an input of an ONNX file that is the same in every call, and is none any more.
    """

    name: str = ""
    factory: str = ""
    shapes: dict[str, tuple[int, ...]] = {}
    samples: str = ""
    trust_pickle: bool = False
    constants: dict[str, float] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """What a source makes of a file.

    Args:
        program: Its float program: flat tensors in, a flat tuple of tensors out.
        inputs: Inputs in the program's order, named as the file names them.
        outputs: Outputs in the program's order, named as the file names them.
        samples: Input name -> ``[S, *shape]``: inputs to check conversions with; random where the file brings none.
        labels: Class names, where the file brings them.
        preprocessing: Description of the preprocessing, where the file brings one.
        notes: What a user should know: weights kept as float, shapes that were fixed, parts that were left out.
    """

    program: ExportedProgram
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: Mapping[str, Array]
    labels: Sequence[str] = ()
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


def random_samples(inputs: Sequence[TensorSpec], *, count: int = 4, seed: int = 0) -> dict[str, Array]:
    """Inputs drawn at random, ``[count, *shape]`` by name: standard normal floats, and 0 or 1 for integers and booleans."""
    import numpy as np

    draw = np.random.default_rng(seed)
    made = {}
    for spec in inputs:
        shape = (count, *spec.shape)
        values = draw.standard_normal(shape) if spec.dtype.startswith("float") else draw.integers(0, 2, shape)
        made[spec.name] = values.astype(spec.dtype)
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenInput:
    """An input as a file declares it.

    Args:
        name: Its name.
        shape: Sizes, None for those the file leaves open; None as a whole where it says nothing.
        dtype: Element type; empty where the file does not say: that of the samples, else float32.
    """

    name: str
    shape: tuple[int | None, ...] | None = None
    dtype: str = ""


def settle_inputs(
    declared: Sequence[OpenInput], *, options: SourceOptions, where: str
) -> tuple[tuple[TensorSpec, ...], list[str]]:
    """Inputs with every size known: from the file, else from the options, else from the samples; an open batch axis is 1.

    Args:
        declared: What the file says.
        options: What the user says.
        where: The file, for messages.

    Returns:
        The inputs, and a note for each that was not fixed by the file.

    Raises:
        UsageError: A shape is still open, contradicts the file, or belongs to no input.
    """
    names = [one.name for one in declared]
    for name in options.shapes:
        if name not in names:
            raise UsageError(f"{where} has no input '{name}'; its inputs are {', '.join(names)}.{nearest(name, names)}")
    stored = _stored_samples(Path(options.samples), names) if options.samples else {}
    specs, notes = [], []
    for one in declared:
        shape = _settled(one, given=options.shapes.get(one.name), sample=stored.get(one.name), where=where)
        dtype = one.dtype or (str(stored[one.name].dtype) if one.name in stored else "float32")
        if one.shape != shape:
            notes.append(f"Input '{one.name}' is fixed to {list(shape)}.")
        specs.append(TensorSpec.parse({"name": one.name, "shape": shape, "dtype": dtype}, source=where))
    return tuple(specs), notes


def _settled(one: OpenInput, *, given: tuple[int, ...] | None, sample: Array | None, where: str) -> tuple[int, ...]:
    if given is not None:
        fits = one.shape is None or (
            len(one.shape) == len(given) and all(size in {None, want} for size, want in zip(one.shape, given, strict=True))
        )
        if not fits:
            raise UsageError(
                f"{where}: input '{one.name}' is {_written(one.shape)}, and cannot be {','.join(map(str, given))}."
                " Change the sizes written as ? only."
            )
        return given
    if one.shape is not None and None not in one.shape[1:]:
        return tuple(1 if size is None else size for size in one.shape)
    if sample is not None and one.shape is None:
        return (1, *sample.shape[1:])
    if sample is not None and one.shape is not None and sample.ndim in {len(one.shape), len(one.shape) + 1}:
        found = sample.shape[sample.ndim - len(one.shape) :]
        first = 1 if one.shape[0] is None and sample.ndim == len(one.shape) else found[0]
        return tuple(size if size is not None else known for size, known in zip(one.shape, (first, *found[1:]), strict=True))
    raise UsageError(
        f"{where} leaves the shape of input '{one.name}' open ({_written(one.shape)}). Say it with"
        f" --shape {one.name}=1,3,224,224 (in Python shapes={{'{one.name}': (1, 3, 224, 224)}}), with your model's own sizes,"
        " or give samples with --samples inputs.npz."
    )


def _written(shape: Sequence[int | None] | None) -> str:
    return "any shape" if shape is None else ",".join("?" if size is None else str(size) for size in shape)


def read_samples(options: SourceOptions, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Samples by input name, ``[S, *shape]``: from the ``.npz`` the options name, else drawn at random.

    Raises:
        DataError: The file cannot be read, lacks an input, or holds arrays of other shapes or dtypes, or numbers that are not
            finite.
    """
    import numpy as np

    if not options.samples:
        return random_samples(inputs)
    path = Path(options.samples)
    stored = _stored_samples(path, [spec.name for spec in inputs])
    made = {spec.name: _as_batches(stored[spec.name], spec, path) for spec in inputs}
    counts = {name: len(array) for name, array in made.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise DataError(f"{path}: the inputs have {counts} samples; each needs the same number, at least one.")
    for name, array in made.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: '{name}' holds numbers that are NaN or infinite. Clean the data first.")
    return made


def _stored_samples(path: Path, names: Sequence[str]) -> dict[str, Array]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError, KeyError) as reason:
        raise DataError(
            f"{path} is no .npz file of arrays: {reason}. Write it with numpy.savez(path, {names[0]}=...)."
        ) from reason
    if len(names) == 1 and list(arrays) == ["arr_0"]:  # numpy.savez(path, array)
        return {names[0]: arrays["arr_0"]}
    for name in names:
        if name not in arrays:
            raise DataError(f"{path} holds no '{name}' but {', '.join(arrays) or 'nothing'}.{nearest(name, arrays)}")
    return {name: arrays[name] for name in names}


def _as_batches(array: Array, spec: TensorSpec, path: Path) -> Array:
    import numpy as np

    shape = tuple(array.shape)
    if str(array.dtype) != spec.dtype:
        if array.dtype.kind != np.dtype(spec.dtype).kind:
            raise DataError(f"{path}: '{spec.name}' is {array.dtype}, the model wants {spec.dtype}. Convert it first.")
        array = array.astype(spec.dtype)
    if shape[1:] == spec.shape:
        return array
    if spec.shape and shape[1:] == spec.shape[1:] and shape[0] >= spec.shape[0] > 0:
        count = shape[0] // spec.shape[0]
        return array[: count * spec.shape[0]].reshape(count, *spec.shape)
    raise DataError(
        f"{path}: '{spec.name}' has shape {list(shape)}; the model wants {['S', *spec.shape]}, or"
        f" {['N', *spec.shape[1:]]} with a multiple of its batch size."
    )
