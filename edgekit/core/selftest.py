"""The golden self-test of an artifact: a few inputs, the answers they must give, and how far those may be off.

It travels in the artifact's folder, in files that every language reads without a library::

    selftest/
      selftest.json                 this record
      0.input.image.bin             raw values, little-endian, C order, in the artifact's own type and layout
      0.output.logits.bin
      1.input.image.bin  …

An output passes where two numbers hold, over all its values: the largest difference, and the root mean square of the
differences. Both limits come from what the artifact was measured to be off in its own runtime when it was made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit.core.errors import IntegrityError
from edgekit.core.files import inside, write_bytes
from edgekit.core.model import Record
from edgekit.core.tensors import DType, TensorSpec

if TYPE_CHECKING:
    from edgekit.core.tensors import Array, Arrays

__all__ = [
    "CheckedInput",
    "CheckedOutput",
    "OutputCheck",
    "SelfTest",
    "SelfTestResult",
    "check_answers",
    "differences",
    "write_selftest",
]


class CheckedInput(Record):
    """One input.

    Args:
        name: Its name.
        dtype: Element type of the files, and of the artifact's input.
        shape: Shape of one case, the batch first.
        files: One file for each case, beside ``selftest.json``.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    files: tuple[str, ...]


class CheckedOutput(CheckedInput):
    """One output: what it must be, and how far it may be off.

    Args:
        tolerance: Largest difference of any value that passes, in the output's own numbers.
        rms_tolerance: Largest root mean square of the differences that passes.
        measured: Largest difference found when the artifact was made; None where nothing here could run it.
        measured_rms: The same for the root mean square.
    """

    tolerance: float
    rms_tolerance: float
    measured: float | None = None
    measured_rms: float | None = None


class SelfTest(Record):
    """``selftest.json``.

    Args:
        model: The artifact's file, relative to this folder.
        model_sha256: Its digest.
        runtime: What ran the artifact for the measured differences, with its version; empty where nothing could.
        because: Where the tolerances come from, in a sentence.
        inputs: Inputs in the artifact's order.
        outputs: Outputs in the artifact's order.
    """

    schema_version: Literal[1] = 1
    model: str
    model_sha256: str
    runtime: str = ""
    because: str
    inputs: tuple[CheckedInput, ...]
    outputs: tuple[CheckedOutput, ...]

    @property
    def case_count(self) -> int:
        """How many inputs there are to answer."""
        return len(self.inputs[0].files) if self.inputs else 1

    @classmethod
    def load(cls, folder: Path) -> SelfTest:
        """Read ``selftest.json`` of a folder and see that every file is there, whole.

        Raises:
            IntegrityError: A file is missing or has another size.
        """
        record = cls.read_json(folder / "selftest.json")
        for tensor in (*record.inputs, *record.outputs):
            for name in tensor.files:
                _read(inside(folder, name), tensor)
        return record

    def inputs_of(self, case: int, *, folder: Path) -> dict[str, Array]:
        """Input name -> ``shape`` of one case."""
        return {tensor.name: _read(folder / tensor.files[case], tensor) for tensor in self.inputs}

    def outputs_of(self, case: int, *, folder: Path) -> dict[str, Array]:
        """Output name -> ``shape`` that one case must give."""
        return {tensor.name: _read(folder / tensor.files[case], tensor) for tensor in self.outputs}


class OutputCheck(Record):
    """How one output did over all cases.

    Args:
        name: The output.
        difference: Largest difference; None where values are NaN or infinite that must not be.
        rms: Root mean square of the differences, of the worst case.
        tolerance: What ``difference`` may be.
        rms_tolerance: What ``rms`` may be.
    """

    name: str
    difference: float | None
    rms: float | None
    tolerance: float
    rms_tolerance: float

    @property
    def passed(self) -> bool:
        """Whether both numbers are within their limits."""
        return (
            self.difference is not None
            and self.rms is not None
            and self.difference <= self.tolerance
            and self.rms <= self.rms_tolerance
        )


class SelfTestResult(Record):
    """What running a self-test found.

    Args:
        artifact: Label of the artifact.
        runtime: What ran it, with its version.
        case_count: Inputs answered.
        outputs: One check for each output.
    """

    artifact: str
    runtime: str
    case_count: int
    outputs: tuple[OutputCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is within its limits."""
        return all(output.passed for output in self.outputs)


def write_selftest(
    folder: Path, cases: Sequence[tuple[Arrays, Arrays]], *, specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]]
) -> tuple[tuple[CheckedInput, ...], tuple[CheckedInput, ...]]:
    """Write the arrays of some cases as raw files.

    Args:
        folder: Where to; made if need be.
        cases: Inputs and outputs by name, each exactly as the specs say.
        specs: Of inputs and of outputs.

    Returns:
        The records of inputs and outputs, without tolerances.
    """
    written = []
    for role, side, kind in zip(("input", "output"), specs, (0, 1), strict=True):
        tensors = []
        for spec in side:
            names = tuple(f"{number}.{role}.{_file_name(spec.name)}.bin" for number in range(len(cases)))
            for name, case in zip(names, cases, strict=True):
                write_bytes(folder / name, _raw(case[kind][spec.name]))
            tensors.append(CheckedInput(name=spec.name, dtype=spec.dtype, shape=spec.shape, files=names))
        written.append(tuple(tensors))
    return written[0], written[1]


def check_answers(record: SelfTest, answers: Sequence[Mapping[str, Array]], *, folder: Path) -> tuple[OutputCheck, ...]:
    """Compare what a runtime answered with what must come out.

    Args:
        record: The self-test.
        answers: Output name -> values, one mapping for each case.
        folder: Where the self-test lies.
    """
    found = []
    for output in record.outputs:
        rows = [
            differences(answer[output.name], _read(folder / name, output))
            for answer, name in zip(answers, output.files, strict=True)
        ]
        found.append(
            OutputCheck(
                name=output.name,
                difference=_worst([largest for largest, _ in rows]),
                rms=_worst([rms for _, rms in rows]),
                tolerance=output.tolerance,
                rms_tolerance=output.rms_tolerance,
            )
        )
    return tuple(found)


def differences(found: Array, expected: Array) -> tuple[float | None, float | None]:
    """Largest difference and root mean square of all; None where one value is finite and the other is not.

    >>> import numpy as np
    >>> differences(np.array([1.0, 5.0]), np.array([1.0, 2.0]))[0]
    3.0
    """
    import numpy as np

    if found.shape != expected.shape:
        return None, None
    one, other = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if not np.all(same | (np.isfinite(one) & np.isfinite(other))):
        return None, None
    apart = np.where(same, 0.0, np.abs(np.where(same, 0.0, one) - np.where(same, 0.0, other)))
    return float(apart.max(initial=0.0)), float(np.sqrt(np.mean(apart**2))) if apart.size else 0.0


def _worst(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return max(known, default=0.0) if len(known) == len(numbers) else None


def _raw(values: Array) -> bytes:
    import numpy as np

    raw: bytes = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return raw


def _read(path: Path, tensor: CheckedInput) -> Array:
    import numpy as np

    try:
        data = path.read_bytes()
    except OSError as reason:
        raise IntegrityError(f"{path} cannot be read: {reason.strerror}. Export again.") from reason
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    expected = dtype.itemsize * math.prod(tensor.shape)  # Python's integers: a damaged shape may be of any size
    if len(data) != expected:
        raise IntegrityError(
            f"{path} has {len(data)} bytes, but {tensor.dtype} {list(tensor.shape)} has {expected}. Export again."
        )
    try:
        values: Array = np.frombuffer(data, dtype).reshape(tensor.shape).astype(tensor.dtype)
    except ValueError as reason:  # more axes than an array can have, or negative ones
        raise IntegrityError(f"{path} cannot have the shape {list(tensor.shape)}: {reason}. Export again.") from reason
    return values


def _file_name(name: str) -> str:
    """The tensor's name, or what of it every file system takes."""
    return re.sub(r"[^\w-]", "_", name)
