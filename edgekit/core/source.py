"""A model that comes from a file: what it can be told, and what reading it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.core.model import Record
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.tensors import Array

__all__ = ["ImportedModel", "SourceOptions", "random_samples"]


class SourceOptions(Record):
    """What a file does not say itself.

    Args:
        name: Name of the model; the file's name where empty.
        factory: ``FILE.py:FUNCTION`` that builds the net a state dict belongs to.
        shapes: Input name -> shape, for inputs whose shape the file leaves open (``[N, C, H, W]``).
        samples: ``.npz`` file of inputs by name, ``[S, *shape]``: examples and calibration data.
        trust_pickle: Read files that can run code when they are read. Only for files you made yourself.
    """

    name: str = ""
    factory: str = ""
    shapes: dict[str, tuple[int, ...]] = {}
    samples: str = ""
    trust_pickle: bool = False


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
