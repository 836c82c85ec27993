"""``edgekit bench``: what model files cost on this machine, or a run's artifacts on devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import command, once, option
from edgekit.cli.running_options import running_options

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["bench"]

_SCENARIOS = ("single-stream", "multi-stream", "offline")
_OF_FILES = ("inputs", "warm_up", "runtime", "threads", "settings", "timeout", "memory")
"""Parameters that concern files; a run's artifacts are loaded as a device's profile says."""
_OF_RUNS = ("devices", "targets", "scenarios", "query_size", "starts", "sustained", "minutes", "audit", "seed")
_SECONDS = 3.0
_MINUTES = 10.0


@command(
    examples=[
        "bench runs/watch/artifacts/tflite/model.tflite --seconds 1",
        "bench runs/watch/artifacts/onnx-float32/model.onnx runs/watch/artifacts/onnx/model.onnx --seconds 1 --profile",
        "bench runs/watch/artifacts/tflite/model.tflite -O provider=builtin --warm-up 50 --seconds 1 --json",
        "bench runs/watch --device host --target tflite --scenario single-stream --scenario offline --seconds 0.2 --starts 1",
        "bench runs/watch --device host --target tflite --sustained --minutes 0.02 --audit --seconds 0.2 --starts 0 --json",
    ]
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN|FILES...")
@option("--seconds", type=click.FloatRange(min=0, min_open=True), default=_SECONDS, show_default=True,
        help="Time for each file's samples, in each scenario; less where enough is known sooner.")  # fmt: skip
@option("--profile", is_flag=True, help="Also show where the time goes, operator by operator.")
@option("--device", "devices", metavar="NAME|FILE", multiple=True,
        help="Where RUN's artifacts are timed: name or file of profiles. May be repeated.  [default: host]")  # fmt: skip
@option("--target", "targets", metavar="NAME", multiple=True, help="Only RUN's artifacts of this target. May be repeated.")
@option("--scenario", "scenarios", type=click.Choice(_SCENARIOS), multiple=True,
        help="How queries come, after MLPerf Inference. May be repeated.  [default: single-stream]")  # fmt: skip
@option("--query-size", type=click.IntRange(min=1), default=8, show_default=True, help="Samples in a query of multi-stream.")
@option("--starts", type=click.IntRange(min=0), default=3, show_default=True,
        help="So many cold and so many warm starts, each in a process of its own.")  # fmt: skip
@once("--sustained", is_flag=True, help="Also run each artifact for --minutes without a pause: drift, throttling, energy.")
@once("--minutes", type=click.FloatRange(min=0, min_open=True), default=_MINUTES, show_default=True,
      help="Length of a sustained run.")  # fmt: skip
@once("--audit", is_flag=True, help="Also check that times and answers belong together, after MLPerf's compliance tests.")
@option("--seed", type=int, default=0, show_default=True, help="Chooses the samples of the queries.")
@option("--input", "inputs", metavar="FILE.npz|NAME=FILE.npy", multiple=True,
        help="Inputs of FILES; random numbers where none are given. May be repeated.")  # fmt: skip
@option("--warm-up", type=click.IntRange(min=0), default=0, show_default=True,
        help="Inferences before any is timed; warm-up among the timed ones is found and left out in any case.")  # fmt: skip
@running_options
def bench(terminal: Terminal, /, files: tuple[Path, ...], seconds: float, profile: bool, **chosen: Any) -> None:
    """Time FILES on this machine, or the artifacts of RUN on devices, in turn.

    FILES may be of any format and need no run folder: each is loaded in a confined process of its own, and the first is what the
    others are compared with. Load, first inference, latency and CPU time with their distribution, memory, and with --profile
    every operator's time and whether it computes on integers, on floats, or fell back.

    RUN's artifacts run on each --device by its transport: cold and warm start, MLPerf's scenarios with their percentiles'
    intervals, what else the device did meanwhile, and on request a sustained run and an audit. All of it is kept in RUN/bench.
    """
    is_run = len(files) == 1 and (files[0] / "edgekit.json").is_file()
    _refuse(_OF_FILES if is_run else _OF_RUNS, is_run=is_run)
    if is_run:
        _bench_run(terminal, files[0], seconds=seconds, profile=profile, **{name: chosen[name] for name in _OF_RUNS})
    else:
        _bench_files(terminal, files, seconds=seconds, profile=profile, **{name: chosen[name] for name in _OF_FILES})


def _refuse(names: tuple[str, ...], *, is_run: bool) -> None:
    """Options of files with a run, or of runs with files, that were asked for on the command line."""
    from edgekit.core.errors import UsageError

    context = click.get_current_context()
    given = click.core.ParameterSource.COMMANDLINE
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) is given:
            what = "a run's artifacts are loaded as the device's profile says" if is_run else "it is for a run folder, RUN"
            raise UsageError(f"{parameter.opts[0]} does not go with {'RUN' if is_run else 'FILES'}: {what}. Leave it out.")


def _bench_run(terminal: Terminal, folder: Path, *, seconds: float, profile: bool, **chosen: Any) -> None:
    from edgekit.core.run import RunFolder
    from edgekit.run_bench import bench_run

    sustained, minutes = chosen.pop("sustained"), chosen.pop("minutes")
    chosen["devices"] = chosen["devices"] or ("host",)
    chosen["scenarios"] = chosen["scenarios"] or ("single-stream",)
    chosen["sustained_minutes"] = minutes if sustained else None
    run = RunFolder(folder)
    with terminal.working(run) as progress:
        found = bench_run(folder, seconds=seconds, profile=profile, progress=progress, **chosen)
    from edgekit.report.bench_terminal import render_terminal

    terminal.finish({"bench": json.loads(found.to_json())}, lambda console: render_terminal(found, console))
    terminal.note(f"Kept: {', '.join(str(run.path / 'bench' / f'{device.profile.name}.json') for device in found.devices)}")


def _bench_files(terminal: Terminal, files: tuple[Path, ...], *, seconds: float, profile: bool, **chosen: Any) -> None:
    from edgekit.core.spawned_child import StartedChild

    threads, memory = chosen["threads"], chosen["memory"]
    with terminal.working() as progress:
        started = StartedChild(threads=threads, log=terminal.log)  # imports what it needs while this process does
        try:
            from edgekit.core.model_inputs import read_arrays
            from edgekit.core.runtime_options import parse_settings
            from edgekit.file_bench import bench as measure

            found = measure(
                *files, inputs=read_arrays(chosen["inputs"]), runtime=chosen["runtime"], threads=threads,
                options=parse_settings(chosen["settings"]), seconds=seconds, warm_up=chosen["warm_up"], profile=profile,
                timeout_s=chosen["timeout"], memory_bytes=memory * 2**20 if memory else None, progress=progress,
                log=terminal.log, started=started,
            )  # fmt: skip
        finally:
            started.discard()
    from edgekit.report.file_bench import render_terminal

    terminal.finish({"bench": json.loads(found.to_json())}, lambda console: render_terminal(found, console))
