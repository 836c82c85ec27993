"""What edgekit-runner left behind, as a job's result: reports are read, arrays are held against their digests."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError
from edgekit.core.tensors import TensorSpec
from edgekit.device_tests.jobs import Answers

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.tensors import Array

__all__ = ["RecordedSession", "as_written", "read_answers", "read_outputs", "read_report"]

_ADVICE = "Validate again."
_REPORT_BYTES = 2**30


class RecordedSession:
    """A session whose answers were given before, somewhere else; each call takes the next.

    Args:
        inputs: Of the model.
        outputs: Of the model.
        rows: Output name -> arrays ``[inferences, *shape]``, one after the other.
    """

    def __init__(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], rows: Mapping[str, Sequence[Array]]
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._rows = {name: (row for array in arrays for row in array) for name, arrays in rows.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:  # noqa: ARG002  they were given there
        """The next recorded answers.

        Raises:
            IntegrityError: Fewer were recorded.
        """
        found: dict[str, Array] = {}
        for name, rows in self._rows.items():
            row = next(rows, None)
            if row is None:
                raise IntegrityError(f"The device gave fewer answers than it was asked for (output '{name}'). {_ADVICE}")
            found[name] = row
        return found

    def close(self) -> None:
        """Nothing to free."""


def as_written(artifact: Artifact) -> Artifact:
    """The artifact for callers whose inputs are not used any more: they are passed on as they are."""
    plain = tuple(TensorSpec(name=spec.name, shape=spec.shape, dtype=spec.dtype) for spec in artifact.inputs)
    return artifact.replace(inputs=plain, baked={}, preprocessing={})


def read_report(path: Path, artifact: Artifact) -> dict[str, Any]:
    """The program's document.

    Raises:
        IntegrityError: It is missing, no such document, or about another file than the artifact's.
    """
    try:
        if path.stat().st_size > _REPORT_BYTES:
            raise IntegrityError(f"{path.name} has more than {_REPORT_BYTES} bytes: no report of edgekit-runner. {_ADVICE}")
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest = report["model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise IntegrityError(f"{path.name} is no report of edgekit-runner: {type(reason).__name__}. {_ADVICE}") from reason
    if digest != artifact.sha256:
        raise IntegrityError(
            f"The device ran a file with sha256 {str(digest)[:16]}…; '{artifact.label}' has {artifact.sha256[:16]}…. {_ADVICE}"
        )
    return report


def read_answers(report: Mapping[str, Any], *, version: str) -> Answers:
    """Times and memory of loading and of the first inference.

    Args:
        report: Of a run that loaded the model twice.
        version: The library's, where the report says none.

    Raises:
        IntegrityError: A number is missing.
    """
    try:
        memory = report["memory"]
        return Answers(
            runtime_version=str(report["runtime"]["version"] or version),
            first_load_ms=report["load_ns"] / 1e6,
            load_ms=report["reload_ns"] / 1e6,
            load_cpu_ms=report["reload_cpu_ns"] / 1e6,
            first_inference_ms=report["first_inference_ns"] / 1e6,
            peak_bytes=memory["after_first_bytes"],
            base_bytes=memory["before_load_bytes"],
        )
    except (KeyError, TypeError, ValueError) as reason:
        raise IntegrityError(f"The device's report lacks a number: {type(reason).__name__}: {reason}. {_ADVICE}") from reason


def read_outputs(report: Mapping[str, Any], folder: Path, artifact: Artifact, *, count: int) -> dict[str, Array]:
    """The arrays of one run, held against the digests that the program took while it wrote them.

    Returns:
        Output name -> ``[count, *shape]``, of the file's own types.

    Raises:
        IntegrityError: A file is missing, damaged, or not what the report says.
    """
    rows = _rows(report)
    missing = [spec.name for spec in artifact.outputs if spec.name not in rows]
    if missing:
        raise IntegrityError(f"The device's report lacks the output '{missing[0]}'; it has {', '.join(rows)}. {_ADVICE}")
    return {spec.name: _array(folder, *rows[spec.name], spec=spec, count=count) for spec in artifact.outputs}


def _rows(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Output name -> its file's name and digest."""

    def pairs() -> Iterator[tuple[str, tuple[str, str]]]:
        for row in report["outputs"]:
            yield row["name"], (Path(row["file"]).name, row["sha256"])

    try:
        return dict(pairs())
    except (KeyError, TypeError) as reason:
        raise IntegrityError(f"The device's report names no outputs: {type(reason).__name__}. {_ADVICE}") from reason


def _array(folder: Path, file: str, digest: str, *, spec: TensorSpec, count: int) -> Array:
    import numpy as np

    path = folder / file
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        raise IntegrityError(f"{path.name} cannot be read as an array: {reason}. {_ADVICE}") from reason
    if array.ndim != len(spec.shape) + 1 or array.shape[0] != count or str(array.dtype) != spec.dtype:
        raise IntegrityError(
            f"The device's answers '{spec.name}' are {array.dtype} {list(array.shape)}; expected {count} times {spec.dtype}"
            f" {spec.sizes}. {_ADVICE}"
        )
    found = hashlib.sha256()
    for row in array:
        found.update(np.ascontiguousarray(row).tobytes())
    if found.hexdigest() != digest:
        raise IntegrityError(
            f"The device's answers '{spec.name}' ({math.prod(array.shape):,} values) were changed on the way: they are not what"
            f" the program wrote down. {_ADVICE}"
        )
    return array.view(np.ndarray)
