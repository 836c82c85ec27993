"""What may help against a divergence, each carried out and measured: no advice that was not tried."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekit.conversion import convert_apart
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.bisection import Bisection, Remedy
from edgekit.core.errors import EdgekitError
from edgekit.core.files import sha256
from edgekit.core.plugins import Progress
from edgekit.core.run import RunFolder
from edgekit.device_tests.bisection.bisect import examine_apart

__all__ = ["try_remedies"]

Attempt = tuple[str, Callable[[Path], tuple[Path, Path]]]
"""What to do as a sentence; and what carries it out in a folder: (artifact folder, file)."""


def try_remedies(run: RunFolder, folder: Path, found: Bisection, *, sample_count: int, progress: Progress) -> tuple[Remedy, ...]:
    """Carry out one remedy after another until one helps.

    Args:
        run: The run.
        folder: Folder of the artifact.
        found: What is wrong.
        sample_count: Golden samples to measure with.
        progress: Called as the work advances.
    """
    tried: list[Remedy] = []
    recorded = Artifact.read_json(folder / "artifact.json")
    for action, carry_out in _attempts(run, folder, recorded, found):
        progress(f"try: {action}", len(tried), None)
        row = Remedy(action=action, error_before=found.output_error)
        with tempfile.TemporaryDirectory(prefix="edgekit-remedy-") as scratch:
            try:
                place, path = carry_out(Path(scratch))
                after = examine_apart(run, place, path, sample_count=sample_count)
            except EdgekitError as reason:
                tried.append(row.replace(note=str(reason)))
                continue
        tried.append(row.replace(error_after=after.output_error, divergence_count=len(after.divergences)))
        if tried[-1].helped:
            break
    return tuple(tried)


def _attempts(run: RunFolder, folder: Path, recorded: Artifact, found: Bisection) -> Iterator[Attempt]:
    exported = folder / recorded.path
    if not found.is_exported and exported.exists() and sha256(exported) == recorded.sha256:
        yield "Use the file that was exported: this one's bytes differ from it.", lambda _: (folder, exported)
    if not found.is_exported:
        yield (
            "Export again: the file's bytes are not those that were exported.",
            lambda scratch: _export(run, recorded, recorded.options, scratch),
        )
        return
    for action, options in _other_options(recorded, found):
        yield action, lambda scratch, options=options: _export(run, recorded, options, scratch)  # type: ignore[misc]
    yield "Export again with the tools that are installed now.", lambda scratch: _export(run, recorded, recorded.options, scratch)


def _other_options(recorded: Artifact, found: Bisection) -> Iterator[tuple[str, ExportOptions]]:
    """Export options that change how the file computes."""
    options = recorded.options
    if recorded.target == "coreml" and options.compute_precision != "float32":
        yield "Export with --compute-precision float32.", options.replace(compute_precision="float32")
    if recorded.target == "onnx" and found.program == "the compressed program":
        other = "int8" if options.activation_type == "uint8" else "uint8"
        yield f"Export with --activation-type {other}.", options.replace(activation_type=other)
    if options.integer_io:
        yield "Export with --float-io.", options.replace(integer_io=False)


def _export(run: RunFolder, recorded: Artifact, options: ExportOptions, scratch: Path) -> tuple[Path, Path]:
    output = scratch / recorded.label
    output.mkdir()
    convert_apart(
        run.compressed,
        output,
        target=recorded.target,
        options=options,
        as_float=recorded.is_baseline,
        label=recorded.label,
        log=run.log,
    )
    made = Artifact.load(output)
    return output, made.path
