"""A model file somebody brings -> a compressed program that no step has touched yet, read in a confined worker process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.errors import IntegrityError, UsageError
from edgekit.core.files import sha256
from edgekit.core.plugins import Source
from edgekit.core.source import SourceOptions

__all__ = ["find_source", "import_apart", "import_in_worker"]


def find_source(path: Path) -> Source:
    """The source that reads a file.

    Raises:
        UsageError: The file does not exist.
        IntegrityError: No source knows it.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist.")
    known = registry.sources()
    for source in known.values():
        if source.recognises(path):
            return source
    raise IntegrityError(f"{path} is no model file edgekit can read, by its name and first bytes. It reads: {', '.join(known)}.")


def import_apart(path: Path, output: Path, *, options: SourceOptions | None = None, log: Path | None = None) -> None:
    """Read a model file in a worker, which writes a folder as :meth:`~edgekit.core.compressed.Compressed.save` does.

    Args:
        path: The file or folder.
        output: Folder to make.
        options: What the file does not say itself.
        log: File the worker's output is appended to.

    Raises:
        IntegrityError: The file is damaged, hostile, or not what its name says.
        UnsupportedOpError: It holds an operator that has no counterpart.
        UsageError: The file leaves open what the options must say.
    """
    source = find_source(path)
    registry.require(source)
    arguments = {"source": source.name, "path": str(path.resolve()), "output": str(output.resolve())}
    worker.call(
        "edgekit.intake:import_in_worker",
        {**arguments, "options": (options or SourceOptions()).model_dump(mode="json")},
        what=f"reading {path.name}",
        hides=source.hides,
        log=log,
    )


def import_in_worker(*, source: str, path: str, output: str, options: dict[str, Any]) -> None:
    """Worker side of :func:`import_apart`."""
    from edgekit.core.compressed import Compressed, CompressedRecord, Golden, StepRecord
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.program import answer_samples
    from edgekit.core.recipe import Recipe
    from edgekit.core.run import tool_versions

    clock, cpu = time.perf_counter(), time.process_time()
    file, choices = Path(path), SourceOptions.parse(options, source="source options")
    model = registry.sources()[source].read(file, options=choices)
    outputs = answer_samples(model.program, model.samples, [spec.name for spec in model.outputs])
    done = StepRecord(
        kind="capture",
        summary=" ".join((f"Read from {file.name} ({source}).", *model.notes)),
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        details={"source": source, "file": file.name, "sha256": sha256(file)},
    )
    record = CompressedRecord(
        name=choices.name or file.stem,
        recipe=Recipe.parse_text("none").model_dump(mode="json"),
        inputs=model.inputs,
        outputs=model.outputs,
        labels=tuple(model.labels),
        preprocessing=dict(model.preprocessing),
        history=(done,),
        versions=tool_versions(),
    )
    Compressed(
        program=model.program,
        float_program=model.program,
        contract=QuantizationContract(),
        record=record,
        golden=Golden(inputs=model.samples, outputs=outputs),
    ).save(Path(output))
