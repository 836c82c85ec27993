"""``edgekit run``: a model file's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import command, once, option
from edgekit.cli.running_options import running_options

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.tensors import Array, TensorSpec
    from edgekit.runtimes.loading import LoadedModel

__all__ = ["run"]

_REFERENCE = "Reference semantics, not the Neural Engine: right numbers, no device's."


@command(
    examples=[
        "run runs/watch/artifacts/coreml/model.mlpackage",
        "run runs/watch/artifacts/tflite/model.tflite --output answers.npz --force --json",
        "run runs/watch/artifacts/onnx/model.onnx -O optimization=none",
    ]
)
@click.argument("file", type=click.Path(path_type=Path))
@option("--input", "inputs", metavar="FILE.npz|NAME=FILE.npy", multiple=True,
        help="Inputs by name, [*shape] or [samples, *shape]; random numbers where none are given. May be repeated.")  # fmt: skip
@once("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the outputs to this .npz file.")
@once("-f", "--force", is_flag=True, help="Replace the output file.")
@option("--seed", type=int, default=0, show_default=True, help="Of random inputs.")
@option("--allow-nan", is_flag=True, help="Take inputs that hold NaN.")
@running_options
def run(
    terminal: Terminal,
    /,
    file: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    force: bool,
    seed: int,
    allow_nan: bool,
    runtime: str | None,
    threads: int,
    settings: tuple[str, ...],
    timeout: float,
    memory: int | None,
) -> None:
    """Run FILE on given inputs, or on random ones, and show what it answers.

    FILE is a .tflite, .onnx, .ort, .pt2 or TorchScript file, an .mlpackage, or a SavedModel. It is opened in a confined process
    only. Core ML packages run on any machine, by reference semantics.
    """
    from edgekit.core.errors import OutputError
    from edgekit.core.model_inputs import draw_inputs, read_arrays, split_samples
    from edgekit.core.runtime_options import parse_settings
    from edgekit.runtimes.loading import load

    if output is not None and output.exists() and not force:
        raise OutputError(f"{output} exists. Choose another --output, or replace it with --force.")
    given = read_arrays(inputs)
    limit = memory * 2**20 if memory else None
    with terminal.working() as progress:
        progress(f"load {file.name}", 0, None)
        with load(file, runtime=runtime, threads=threads, options=parse_settings(settings), timeout_s=timeout,
                  memory_bytes=limit, allow_nan=allow_nan, log=terminal.log) as model:  # fmt: skip
            drawn = [draw_inputs(model.inputs, seed=seed)]
            samples = drawn if given is None else split_samples(model.inputs, given, of=file.name)
            answers = []
            for done, sample in enumerate(samples):
                progress(f"run {file.name}", done, len(samples))
                answers.append(model.run(sample))
    found = _stacked(answers)
    if output is not None:
        _write(output, found)
    document = _document(model, found, count=len(samples), is_random=given is None, output=output)
    terminal.finish({"run": document}, lambda console: _print(document, console))


def _stacked(answers: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Outputs by name: one sample as it is, several along a new first axis (as far as their shapes agree)."""
    import numpy as np

    from edgekit.core.errors import DataError

    if len(answers) == 1:
        return dict(answers[0])
    try:
        return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    except ValueError as reason:
        raise DataError(f"The outputs have another shape for each sample ({reason}). Give one sample at a time.") from reason


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an ``.npz`` whole or not at all."""
    import io

    import numpy as np

    from edgekit.core.files import write_bytes

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's bool keyword
    write_bytes(path, buffer.getvalue())


def _document(
    model: LoadedModel, found: Mapping[str, Array], *, count: int, is_random: bool, output: Path | None
) -> dict[str, Any]:
    return {
        "path": str(model.path), "sha256": model.sha256, "runtime": model.runtime, "runtime_version": model.version,
        "evidence": str(model.evidence), "sample_count": count, "inputs_are_random": is_random,
        "inputs": [_spec(spec) for spec in model.inputs],
        "outputs": [_summary(name, array) for name, array in found.items()],
        "written_to": str(output) if output else None,
    }  # fmt: skip


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "sizes": spec.sizes}


def _summary(name: str, array: Array) -> dict[str, Any]:
    """An output in a few numbers; ``largest_at`` is where its largest value stands, one place a sample or row."""
    import hashlib

    import numpy as np

    row: dict[str, Any] = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    row["sha256"] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    if array.size and array.dtype.kind in "iuf":
        values = array.astype(np.float64)
        finite = np.isfinite(values)
        row["not_finite"] = int(values.size - finite.sum())
        if finite.any():
            kept = values[finite]
            row |= {"minimum": float(kept.min()), "mean": float(kept.mean()), "maximum": float(kept.max())}
        row["largest_at"] = [
            int(place) for place in np.unravel_index(int(np.argmax(np.where(finite, values, -np.inf))), array.shape)
        ]
    return row


def _print(document: Mapping[str, Any], console: Console) -> None:
    from edgekit.report import quantities
    from edgekit.report.terminal_tables import plain_table, text

    given = "random inputs" if document["inputs_are_random"] else f"{document['sample_count']} given sample(s)"
    console.print(text(f"{document['path']} in {document['runtime']} {document['runtime_version']}, {given}"), soft_wrap=True)
    for spec in document["inputs"]:
        console.print(text(f"input   {spec['name']}  {spec['dtype']} {spec['sizes']}"), soft_wrap=True)
    table = plain_table("output", "type", "shape", "least", "mean", "largest", "at", left=("output", "type", "shape", "at"))
    for row in document["outputs"]:
        numbers = [
            quantities.significant(row[key]) if key in row else quantities.NOTHING for key in ("minimum", "mean", "maximum")
        ]
        table.add_row(
            *(text(cell) for cell in (row["name"], row["dtype"], str(row["shape"]), *numbers, str(row.get("largest_at", ""))))
        )
    console.print(table)
    for row in document["outputs"]:
        if row.get("not_finite"):
            console.print(text(f"{row['name']}: {row['not_finite']} values are infinite or NaN.", style="yellow"))
    if document["evidence"] == "reference":
        console.print(text(_REFERENCE, style="dim"), soft_wrap=True)
    if document["written_to"]:
        console.print(text(f"Outputs are in {document['written_to']}."), soft_wrap=True)
