"""``edgekit bench``: what model files cost on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command, option
from edgekit.cli.running_options import running_options

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["bench"]


@command(
    examples=[
        "bench runs/watch/artifacts/tflite/model.tflite --seconds 1",
        "bench runs/watch/artifacts/onnx-float32/model.onnx runs/watch/artifacts/onnx/model.onnx --seconds 1 --profile",
        "bench runs/watch/artifacts/tflite/model.tflite -O provider=builtin --warm-up 50 --seconds 1 --json",
    ]
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--input", "inputs", metavar="FILE.npz|NAME=FILE.npy", multiple=True,
        help="Inputs; random numbers where none are given. May be repeated.")  # fmt: skip
@option("--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
        help="Time for each file's samples; less where its median is known to 1 % sooner.")  # fmt: skip
@option("--warm-up", type=click.IntRange(min=0), default=0, show_default=True,
        help="Inferences before any is timed; warm-up among the timed ones is found and left out in any case.")  # fmt: skip
@option("--profile", is_flag=True, help="Also show where the time goes, operator by operator.")
@running_options
def bench(
    terminal: Terminal,
    /,
    files: tuple[Path, ...],
    inputs: tuple[str, ...],
    seconds: float,
    warm_up: int,
    profile: bool,
    runtime: str | None,
    threads: int,
    settings: tuple[str, ...],
    timeout: float,
    memory: int | None,
) -> None:
    """Time FILES on this machine, each in a confined process of its own, in turn; the first is what the others are compared with.

    Load, first inference, latency and CPU time with their distribution, memory, and with --profile every operator's time and
    whether it computes on integers, on floats, or fell back. FILES may be of any format, and need no run folder.
    """
    from edgekit.core.spawned_child import StartedChild

    with terminal.working() as progress:
        started = StartedChild(threads=threads, log=terminal.log)  # imports what it needs while this process does
        try:
            from edgekit.core.model_inputs import read_arrays
            from edgekit.core.runtime_options import parse_settings
            from edgekit.file_bench import bench as measure

            found = measure(
                *files, inputs=read_arrays(inputs), runtime=runtime, threads=threads, options=parse_settings(settings),
                seconds=seconds, warm_up=warm_up, profile=profile, timeout_s=timeout,
                memory_bytes=memory * 2**20 if memory else None, progress=progress, log=terminal.log, started=started,
            )  # fmt: skip
        finally:
            started.discard()
    from edgekit.report.file_bench import render_terminal

    terminal.finish({"bench": json.loads(found.to_json())}, lambda console: render_terminal(found, console))
