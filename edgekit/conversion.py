"""Program -> file of one target, in a worker process that cannot take its caller with it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.artifact import ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.confinement import Confinement
from edgekit.core.files import check_room, sha256
from edgekit.golden import add_selftest
from edgekit.half_check import check_half
from edgekit.raw_parity import check_raw_parity

__all__ = ["convert_apart", "convert_in_worker"]


def convert_apart(
    compressed: Path,
    output: Path,
    *,
    target: str,
    options: ExportOptions,
    as_float: bool = False,
    label: str,
    log: Path | None,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Convert a saved program inside a confined worker and return the artifact's digest.

    The program may come from somebody else's file: the worker writes into ``output`` and nowhere else.

    Args:
        compressed: Folder of the compressed program.
        output: Empty folder for ``artifact.json`` and the file.
        target: Name in the ``edgekit.converters`` group.
        options: Choices of the export.
        as_float: Convert the captured float program instead: the artifact is a baseline.
        label: What the artifact is called, for messages.
        log: File the worker's output is appended to.
        threads: Threads of the worker's arithmetic; None: as many as it likes.
        stop: Ends the worker once it is set.

    Raises:
        ConversionError: The target cannot take the program.
    """
    arguments = {"target": target, "compressed": str(compressed.resolve()), "output": str(output.resolve())}
    answer = worker.call(
        "edgekit.conversion:convert_in_worker",
        {**arguments, "as_float": as_float, "options": options.model_dump()},
        what=f"converting to {label}",
        hides=registry.converter(target).hides,
        log=log,
        environment={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else None,
        confined=Confinement(reads=(arguments["compressed"],), writes=(arguments["output"],)),
        stop=stop,
    )
    return str(answer)


def convert_in_worker(*, target: str, compressed: str, output: str, as_float: bool, options: dict[str, Any]) -> str:
    """Worker side of :func:`convert_apart`."""
    from edgekit.converters.preparation import prepare
    from edgekit.converters.preprocessing.baking import baking_notes

    place, folder = Path(compressed), Path(output)
    state = Compressed.load(place)
    converter = registry.converter(target)
    choices = ExportOptions.parse(options, source="export options")
    try:
        chosen = state.as_float() if as_float else state
        given, rewrites = prepare(chosen, target=target, options=choices)
        artifact = converter.convert(given, output=folder, options=choices)
        made_from = sha256(place / "compressed.json")
        artifact = artifact.replace(
            is_baseline=as_float or not state.is_changed,
            source_sha256=made_from,
            options=choices,
            rewrites=(*rewrites, *artifact.rewrites),
            baked=given.record.baked,
            notes=(*artifact.notes, *baking_notes(given)),
        )
        artifact = check_half(artifact, given)
        artifact = check_raw_parity(artifact, chosen)
        artifact = add_selftest(artifact, given.golden, folder=folder)
        artifact.save(folder)
    except Exception:
        check_room(folder)  # frameworks have many words for a full disk
        raise
    return artifact.sha256
