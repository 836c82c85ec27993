"""What a compressed Core ML package decodes to, weight by weight, beside the float weights it was made from.

No compression that works makes a channel worse than zeros would be. One that mixes its groups up does: coremltools 9 does so
for palettes of grouped channels with a scale for each channel where the groups do not divide the channels (coremltools#2777).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core import worker
from edgekit.core.confinement import Confinement
from edgekit.core.errors import UsageError
from edgekit.core.weight_audit import WeightAudit, WeightComparison

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["audit_in_worker", "audit_weights", "compare_weights"]

_PACKAGE, _PROGRAM = ".mlpackage", ".pt2"
_MOST_DB = 200.0
_HIDES = ("tensorflow", "onnx", "onnxruntime", "keras", "ai_edge_litert", "litert_torch")
_SHOWN = 8


def audit_weights(path: Path, against: Path) -> WeightAudit:
    """Compare the weights of a package with those of another package or of a program, in a worker.

    Args:
        path: The ``.mlpackage`` folder.
        against: ``.pt2`` or ``.mlpackage`` with the float weights.

    Raises:
        UsageError: One of them does not exist or is another kind of file.
        IntegrityError: One of them is damaged.
        UnsupportedOpError: A weight is stored in a way that cannot be decoded.
    """
    for file, kinds in ((path, (_PACKAGE,)), (against, (_PACKAGE, _PROGRAM))):
        if not file.exists():
            raise UsageError(f"{file} does not exist.")
        if file.suffix not in kinds:
            raise UsageError(f"{file} cannot be audited by its weights; give a {' or a '.join(kinds)} (a run without --against).")
    arguments = {"path": str(path.resolve()), "against": str(against.resolve())}
    answer = worker.call(
        "edgekit.device_tests.weight_audit:audit_in_worker",
        arguments,
        what=f"reading the weights of {path.name}",
        hides=_HIDES,
        confined=Confinement(reads=tuple(arguments.values())),
    )
    return WeightAudit.parse(answer, source="the worker's answer")


def audit_in_worker(*, path: str, against: str) -> dict[str, Any]:
    """Worker side of :func:`audit_weights`."""
    from edgekit.runtimes.coreml.decoded import decoded_weights

    compared = compare_weights(_weights(Path(against)), decoded_weights(Path(path)))
    return WeightAudit(path=path, against=against, weights=tuple(compared)).model_dump(mode="json")


def compare_weights(source: Mapping[str, Array], stored: Mapping[str, Array]) -> Iterator[WeightComparison]:
    """Each weight of the source beside the stored weight that resembles it most, in any order of its axes.

    Args:
        source: Float weights by name, two axes or more.
        stored: Decoded weights of the file by name.
    """
    for name, expected in source.items():
        candidates = [
            (_snr_db(expected, found), key, found) for key, value in stored.items() for found in _layouts(value, expected)
        ]
        best = max(candidates, key=lambda row: row[:2], default=None)
        comparison = WeightComparison(source=name, shape=expected.shape, largest_value=float(np.abs(expected).max(initial=0.0)))
        if best is None:
            yield comparison.replace(problem="no weight of the file has its sizes")
            continue
        snr_db, key, found = best
        bad = _bad_channels(expected, found)
        error = float(np.abs(found - expected).max(initial=0.0))
        problem = _words(bad, expected.shape[0], error) if bad else ""
        yield comparison.replace(stored=key, largest_error=error, snr_db=snr_db, bad_channels=bad, problem=problem)


def _weights(path: Path) -> dict[str, Array]:
    if path.suffix == _PACKAGE:
        from edgekit.runtimes.coreml.decoded import decoded_weights

        return decoded_weights(path)
    from edgekit.core.program import load_program

    state = load_program(path).state_dict
    tensors = {name: value.detach().cpu() for name, value in state.items() if value.is_floating_point() and value.dim() > 1}
    return {name: value.float().numpy() for name, value in tensors.items()}


def _layouts(value: Array, expected: Array) -> Iterator[Array]:
    """The stored weight with its axes in every order that gives the expected sizes; axes of size 1 aside."""
    if value.size != expected.size:
        return
    if value.shape == expected.shape:
        yield value
    slim = value.reshape([size for size in value.shape if size > 1])
    wanted = [size for size in expected.shape if size > 1]
    for order in itertools.permutations(range(slim.ndim)):
        turned = slim.transpose(order)
        if list(turned.shape) == wanted:
            yield turned.reshape(expected.shape)


def _snr_db(expected: Array, found: Array) -> float:
    energy, noise = float(np.square(expected, dtype=np.float64).sum()), float(np.square(found - expected, dtype=np.float64).sum())
    if noise == 0:
        return _MOST_DB
    return float(np.clip(10 * np.log10(max(energy, 1e-300) / noise), -_MOST_DB, _MOST_DB)) if np.isfinite(noise) else -_MOST_DB


def _bad_channels(expected: Array, found: Array) -> tuple[int, ...]:
    """Channels (first axis) whose error is as large as they are, or not finite."""
    rows, other = (array.reshape(array.shape[0], -1).astype(np.float64) for array in (expected, found))
    energy, noise = np.square(rows).sum(1), np.square(other - rows).sum(1)
    return tuple(int(channel) for channel in np.flatnonzero(~(noise <= energy * (1 - 1e-9)) & (noise > 0)))


def _words(bad: tuple[int, ...], channels: int, error: float) -> str:
    listed = ", ".join(map(str, bad[:_SHOWN])) + (", …" if len(bad) > _SHOWN else "")
    return (
        f"{len(bad)} of {channels} channels are further from the source than zeros would be (channel {listed}); largest error"
        f" {error:.3g}. The file was compressed wrongly: compress with other settings, and export again"
    )
