"""What a model file holds, and what tells two of them apart. Files are opened in worker processes only."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.confinement import Confinement
from edgekit.core.difference import Difference, compare_listings, compare_outputs
from edgekit.core.errors import DataError, EdgekitError, IntegrityError, UsageError
from edgekit.core.listing import Inspector, Listing, Value
from edgekit.core.plugins import Progress, silent
from edgekit.core.run import RunFolder

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["diff", "diff_runs", "find_inspector", "inspect", "inspect_in_worker", "read_samples", "run_in_worker"]

_LIMIT_S = 300.0
_MEMORY_BYTES = 6 * 2**30


def inspect(path: Path | str, *, log: Path | None = None) -> Listing:
    """List what a model file holds: operations, shapes, types, multiply-accumulates, size by layer, metadata.

    Args:
        path: An ``.onnx``, ``.ort``, ``.tflite`` or ``.pt2`` file, or an ``.mlpackage``.
        log: File the worker's output is appended to.

    Raises:
        UsageError: The file does not exist.
        IntegrityError: It is damaged, hostile, or of no known format.
    """
    return _listed(Path(path), kept="", log=log)


def diff(
    first: Path | str,
    second: Path | str,
    *,
    samples: Mapping[str, Array] | None = None,
    sample_count: int = 8,
    log: Path | None = None,
) -> Difference:
    """What tells two model files apart, of one format or of two: graph, constants, metadata, and their answers.

    Args:
        first: File A.
        second: File B.
        samples: Input name of A -> ``[S, *shape]``; random numbers where None.
        sample_count: How many random inputs; 0: nothing is run.
        log: File the workers' output is appended to.

    Raises:
        UsageError: A file does not exist.
        IntegrityError: A file is damaged, hostile, or of no known format.
    """
    a, b = Path(first), Path(second)
    with tempfile.TemporaryDirectory(prefix="edgekit-diff-") as scratch:
        kept = [Path(scratch, name) for name in ("first.npz", "second.npz")]
        listings = [_listed(path, kept=str(place), log=log) for path, place in zip((a, b), kept, strict=True)]
        found = compare_listings(*listings, first_numbers=_loaded(kept[0]), second_numbers=_loaded(kept[1]))
        if not sample_count and samples is None:
            return found
        try:
            return _with_answers(found, samples, sample_count, Path(scratch), log=log)
        except EdgekitError as reason:
            return found.replace(notes=(*found.notes, f"Their answers were not compared: {reason}"))


def diff_runs(
    first: Path | str,
    second: Path | str,
    *,
    samples: Mapping[str, Array] | None = None,
    sample_count: int = 8,
    progress: Progress = silent,
    log: Path | None = None,
) -> dict[str, Difference]:
    """What tells the artifacts of two runs apart, by label (``"onnx"``, ``"tflite-float32"``).

    Args:
        first: Run folder A.
        second: Run folder B.
        samples: As for :func:`diff`.
        sample_count: As for :func:`diff`.
        progress: Called as the work advances.
        log: As for :func:`diff`.

    Raises:
        UsageError: A folder is no run, or they have no artifact in common.
        IntegrityError: An artifact is damaged.
    """
    a, b = ({one.label: one for one in RunFolder(Path(run)).load_artifacts()} for run in (first, second))
    common = [label for label in a if label in b]
    if not common:
        raise UsageError(f"{first} holds {sorted(a) or 'no artifacts'}, {second} {sorted(b) or 'none'}: nothing to compare.")
    found = {}
    for done, label in enumerate(common):
        progress(f"compare {label}", done, len(common))
        found[label] = diff(a[label].path, b[label].path, samples=samples, sample_count=sample_count, log=log)
    progress("compare", len(common), len(common))
    return found


def read_samples(path: Path) -> dict[str, Array]:
    """Inputs by name, ``[S, *shape]``, from a ``.npz`` file.

    Raises:
        DataError: It is missing or damaged, holds objects, or arrays of different length.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Array] = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as reason:
        raise DataError(f"{path} is no .npz file of plain arrays: {reason}. Write one with numpy.savez.") from reason
    lengths = {name: len(array) if array.ndim else 0 for name, array in found.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"{path} holds arrays of lengths {lengths}; each needs the same number of samples, at least one.")
    return found


def find_inspector(path: Path) -> Inspector:
    """The inspector that reads a file.

    Raises:
        UsageError: It does not exist, or is a run folder with several files.
        IntegrityError: No inspector knows it.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist. Give a model file: .onnx, .ort, .tflite, .pt2 or .mlpackage.")
    known = registry.inspectors()
    for inspector in known.values():
        if inspector.recognises(path):
            return inspector
    if RunFolder(path).manifest_path.is_file():
        files = ", ".join(str(artifact.path) for artifact in RunFolder(path).load_artifacts()) or "none yet"
        raise UsageError(f"{path} is a run folder; inspect one of its files: {files}.")
    raise IntegrityError(
        f"{path} is no model file edgekit can list, by its name and first bytes{_first_bytes(path)}."
        f" It lists: {', '.join(known)}."
    )


def _listed(path: Path, *, kept: str, log: Path | None) -> Listing:
    """A file's listing, made in a worker, which also writes the constants' numbers to ``kept``."""
    from edgekit.report import difference, listing  # noqa: F401  lets notebooks draw the result

    inspector = find_inspector(path)
    registry.require(inspector)
    found = worker.call(
        "edgekit.inspection:inspect_in_worker",
        {"inspector": inspector.name, "path": str(path.resolve()), "kept": kept},
        what=f"inspecting {path.name}",
        hides=inspector.hides,
        timeout_s=_LIMIT_S,
        memory_bytes=_MEMORY_BYTES,
        log=log,
        confined=Confinement(reads=_readable(path), writes=(str(Path(kept).parent),) if kept else ()),
    )
    return Listing.parse(found, source=str(path)).replace(path=str(path))


def inspect_in_worker(*, inspector: str, path: str, kept: str) -> Any:
    """Worker side of :func:`inspect`."""
    import numpy as np

    numbers: dict[str, Array] = {}
    listing = registry.inspectors()[inspector].inspect(Path(path), kept=numbers if kept else None)
    if kept:  # names of tensors are no names of files: they go by number
        order = {str(at): values for at, values in enumerate(numbers.values())}
        np.savez(kept, names=np.array(list(numbers), dtype=np.str_), **order)  # type: ignore[arg-type]  # numpy's bool keyword
    return listing.model_dump(mode="json")


def run_in_worker(*, runtime: str, path: str, inputs: str, outputs: str) -> None:
    """Worker side of running a file: inputs from one ``.npz``, ``[S, *shape]`` by place; outputs to another, by name."""
    import numpy as np

    session = registry.runtime(runtime).load(Path(path))
    with np.load(inputs, allow_pickle=False) as stored:
        columns = [stored[str(at)] for at in range(len(stored.files))]
    rows = []
    for at in range(columns[0].shape[0]):
        given = {spec.name: column[at].astype(spec.dtype) for spec, column in zip(session.inputs, columns, strict=True)}
        rows.append(session.run(given))
    names = [spec.name for spec in session.outputs]
    stacked = {str(at): np.stack([row[name] for row in rows]) for at, name in enumerate(names)}
    np.savez(outputs, names=np.array(names, dtype=np.str_), **stacked)  # type: ignore[arg-type]  # numpy's bool keyword


def _with_answers(
    found: Difference, samples: Mapping[str, Array] | None, count: int, scratch: Path, *, log: Path | None
) -> Difference:
    """Both files run on the same inputs."""
    import numpy as np

    given = _drawn(found.first.inputs, count) if samples is None else _chosen(samples, found.first)
    a, b = ([value.shape for value in listing.inputs] for listing in (found.first, found.second))
    if a != b:
        raise UsageError(f"their inputs are {a} and {b}; only files with the same inputs can be given the same numbers.")
    np.savez(scratch / "inputs.npz", **{str(at): values for at, values in enumerate(given)})  # type: ignore[arg-type]
    answers: list[dict[str, Array]] = []
    for listing in (found.first, found.second):
        runtime = registry.runtime(registry.inspectors()[listing.format].runtime)
        place = scratch / f"answers-{len(answers)}.npz"
        paths = {"path": str(Path(listing.path).resolve()), "inputs": str(scratch / "inputs.npz"), "outputs": str(place)}
        what, limits = f"running {Path(listing.path).name}", {"timeout_s": _LIMIT_S, "memory_bytes": _MEMORY_BYTES}
        arguments = {"runtime": runtime.name, **paths}
        rights = Confinement(reads=(*_readable(Path(listing.path)), str(scratch)), writes=(str(scratch),))
        worker.call(
            "edgekit.inspection:run_in_worker", arguments, what=what, hides=runtime.hides, log=log, confined=rights, **limits,  # type: ignore[arg-type]
        )  # fmt: skip
        answers.append(_loaded(place))
    if [values.size for values in answers[0].values()] != [values.size for values in answers[1].values()]:
        raise UsageError("their outputs have different sizes.")
    return found.replace(outputs=compare_outputs(*answers), sample_count=len(given[0]))


def _drawn(inputs: tuple[Value, ...], count: int) -> list[Array]:
    """Random numbers for each input: standard normal for floats, the whole range for 8-bit integers, 0 or 1 for others."""
    import numpy as np

    draw, made = np.random.default_rng(0), []
    for value in inputs:
        shape = (count, *(size or 1 for size in value.shape or ()))
        if value.dtype.startswith("float"):
            made.append(draw.standard_normal(shape).astype(value.dtype))
        elif value.dtype in {"int8", "uint8"}:
            limits = np.iinfo(value.dtype)
            made.append(draw.integers(limits.min, limits.max, shape, endpoint=True).astype(value.dtype))
        else:
            made.append(draw.integers(0, 2, shape).astype(value.dtype))
    return made


def _chosen(samples: Mapping[str, Array], listing: Listing) -> list[Array]:
    names = [value.name for value in listing.inputs]
    if set(samples) != set(names):
        raise UsageError(f"the samples are for {sorted(samples)}, but {listing.path} takes {names}.")
    return [samples[name] for name in names]


def _loaded(path: Path) -> dict[str, Array]:
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {str(name): stored[str(at)] for at, name in enumerate(stored["names"])}


def _readable(path: Path) -> tuple[str, ...]:
    """The file; and its folder, where an ONNX model's weights may lie in files of any name."""
    place = path.resolve()
    return (str(place), str(place.parent)) if place.suffix == ".onnx" else (str(place),)


def _first_bytes(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return f" ({stream.read(8)!r})"
