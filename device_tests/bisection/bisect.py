"""Find the first layer at which a run's file computes otherwise than its program, and try what may help.

Everything that loads a framework happens in worker processes: one for the file and its program, one for each remedy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from edgekit import registry
from edgekit.core import worker
from edgekit.core.artifact import Artifact
from edgekit.core.bisection import Bisection
from edgekit.core.compressed import Compressed
from edgekit.core.confinement import Confinement
from edgekit.core.errors import IntegrityError, UsageError, nearest
from edgekit.core.files import sha256
from edgekit.core.plugins import Progress, Runtime, silent
from edgekit.core.provenance import Kernels, Tracer
from edgekit.core.run import RunFolder
from edgekit.device_tests.transports.local import thread_limits

__all__ = ["bisect", "examine_apart"]

_SAMPLES = 3


def bisect(
    run: Path | str,
    *,
    target: str,
    artifact: str | None = None,
    file: Path | str | None = None,
    sample_count: int = _SAMPLES,
    kernels: Kernels = "reference",
    against: Literal["program", "float"] = "program",
    remedies: bool = True,
    split: bool = False,
    progress: Progress = silent,
) -> Bisection:
    """Find the first layer at which a file computes otherwise than the program it was made from.

    Args:
        run: The run folder.
        target: ``"onnx"``, ``"tflite"``, ``"coreml"``.
        artifact: Label of the artifact, ``"tflite-float32"``; the target's compressed one where None.
        file: Another file to examine in its place, made from the same program.
        sample_count: At most so many golden samples.
        kernels: The runtime's plainest kernels, or those that ship.
        against: ``"float"`` also measures each value's signal-to-noise ratio against the float program.
        remedies: Try what may help.
        split: Also split every layer's error into weights, clipping, rounding, converter rewrite and kernel, and name the layers
            that make executors differ; see :mod:`edgekit.core.error_split`.
        progress: Called as the work advances.

    Raises:
        UsageError: The target or the artifact is unknown, or its runtime cannot show tensors; or there is nothing to split.
        IntegrityError: The file is damaged, or of another model.
    """
    place = RunFolder(Path(run))
    place.manifest()
    folder = _artifact_folder(place, target, artifact)
    recorded = Artifact.read_json(folder / "artifact.json")
    if recorded.source_sha256 and recorded.source_sha256 != sha256(place.compressed / "compressed.json"):
        raise IntegrityError(f"{folder} was made from another program than {place.compressed} holds. Export again.")
    path = Path(file) if file is not None else folder / recorded.path
    if not path.exists():
        raise UsageError(f"{path} does not exist." if file is not None else f"{path} is missing. Export again.")
    if sample_count < 1:
        raise UsageError(f"sample_count is {sample_count}; at least one sample is needed.")
    progress(f"bisect {recorded.label}", 0, None)
    found = examine_apart(
        place, folder, path, kernels=kernels, sample_count=sample_count, against=against, output=place.path / "bisection"
    )
    if found.divergences and remedies:
        from edgekit.device_tests.bisection.remedies import try_remedies

        tried = try_remedies(place, folder, found, sample_count=sample_count, progress=progress)
        found = found.replace(remedies=tried)
    if split:
        progress(f"split {recorded.label}", 0, None)
        found = _with_split(found, place, folder, sample_count=sample_count)
    found.write_json(place.path / "bisection" / recorded.label / "bisection.json")
    progress(f"bisect {recorded.label}", 1, 1)
    return found


def _with_split(found: Bisection, run: RunFolder, folder: Path, *, sample_count: int) -> Bisection:
    """The result with every layer's error split.

    Raises:
        UsageError: The file is not the exported one, or there is nothing to split.
    """
    from edgekit.device_tests.error_split import split_apart

    if not found.is_exported:
        raise UsageError(f"{found.path} is not the exported file: its error cannot be split. Leave out --file, or --split.")
    return found.replace(split=split_apart(run, folder, sample_count=sample_count))


def _artifact_folder(run: RunFolder, target: str, label: str | None) -> Path:
    """The folder of the artifact that is meant.

    Raises:
        UsageError: There is none.
    """
    known = registry.names("converters")
    if target not in known:
        raise UsageError(f"Unknown target '{target}'; known: {', '.join(known)}.{nearest(target, known)}")
    folders = {path.parent.name: path.parent for path in sorted(run.artifacts.glob("*/artifact.json"))}
    own = {name: folder for name, folder in folders.items() if name == target or name.startswith(f"{target}-")}
    if not own:
        there = f"it holds {', '.join(folders)}" if folders else "it holds no artifacts"
        raise UsageError(
            f"{run.path} has no artifact for target '{target}' ({there})."
            f" Make it with: edgekit export {run.path} --target {target}"
        )
    if label is None:
        return own.get(target) or next(iter(own.values()))
    if label not in own:
        raise UsageError(
            f"{run.path} has no artifact '{label}' for target '{target}'; there are: {', '.join(own)}.{nearest(label, own)}"
        )
    return own[label]


def examine_apart(
    run: RunFolder,
    folder: Path,
    path: Path,
    *,
    compressed: Path | None = None,
    kernels: str = "reference",
    sample_count: int = _SAMPLES,
    against: str = "program",
    output: Path | None = None,
) -> Bisection:
    """Compare one file with the run's program, in a worker.

    Args:
        run: The run.
        folder: Folder of the artifact the file stands for.
        path: The file.
        compressed: Folder of another program than the run's.
        kernels: See :func:`bisect`.
        sample_count: At most so many golden samples.
        against: See :func:`bisect`.
        output: Folder for scripts that reproduce what was found; None: none are written.
    """
    tracer = _tracer(Artifact.read_json(folder / "artifact.json").target)
    arguments = {
        "run": str(run.path.resolve()), "folder": str(folder.resolve()), "path": str(path.resolve()), "runtime": tracer.name,
        "compressed": str((compressed or run.compressed).resolve()), "kernels": kernels, "sample_count": sample_count,
        "against": against, "output": str(output.resolve()) if output else "",
    }  # fmt: skip
    with _writing(output) as writes:
        answer = worker.call(
            "edgekit.device_tests.bisection.bisect:examine_in_worker",
            arguments,
            what=f"bisecting {folder.name}",
            hides=tuple(name for name in tracer.hides if name != "torch"),  # the program is run with torch
            environment=thread_limits(1),
            log=run.log,
            confined=Confinement(
                reads=tuple(str(arguments[key]) for key in ("run", "folder", "path", "compressed")), writes=writes
            ),
        )
    return Bisection.parse(answer, source=f"bisection of {folder.name}")


@contextlib.contextmanager
def _writing(output: Path | None) -> Iterator[tuple[str, ...]]:
    """Folders a confined worker may write: they have to be there before; what it leaves empty goes again."""
    if output is None:
        yield ()
        return
    output.mkdir(parents=True, exist_ok=True)
    try:
        yield (str(output.resolve()),)
    finally:
        with contextlib.suppress(OSError):
            output.rmdir()


def _tracer(target: str) -> Runtime:
    """The runtime that shows every tensor of a target's files.

    Raises:
        UsageError: None can.
    """
    for name in registry.names("runtimes"):
        runtime = registry.runtime(name)
        if runtime.target == target and isinstance(runtime, Tracer):
            registry.require(runtime)
            return runtime
    raise UsageError(f"No installed runtime can show the tensors of target '{target}', so its files cannot be bisected.")


def examine_in_worker(
    *, run: str, folder: str, path: str, runtime: str, compressed: str, kernels: Any, sample_count: int, against: str, output: str
) -> dict[str, Any]:
    """Worker side of :func:`examine_apart`."""
    from edgekit.device_tests.bisection.examine import examine, report
    from edgekit.device_tests.bisection.loss import with_float_snr
    from edgekit.device_tests.bisection.reproduction import reproductions

    state, place = Compressed.load(Path(compressed)), Path(folder)
    artifact = Artifact.read_json(place / "artifact.json")
    exported, given = place / artifact.path, Path(path)
    before = None
    if given != exported and exported.exists() and sha256(exported) == artifact.sha256 != sha256(given):
        before = examine(state, artifact, exported, runtime=runtime, sample_count=sample_count, kernels=kernels)
    found = examine(state, artifact, given, runtime=runtime, sample_count=sample_count, kernels=kernels, known=before)
    scripts = reproductions(found, Path(output, artifact.label), tracer=registry.runtime(runtime)) if output else {}
    result = report(found, run=run, original=before.file if before is not None else None, reproductions=scripts)
    return (with_float_snr(result, found, state) if against == "float" else result).model_dump(mode="json")
