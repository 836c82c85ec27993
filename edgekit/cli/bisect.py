"""``edgekit bisect``: the first layer at which a file computes otherwise than its program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, once, option, run_argument

if TYPE_CHECKING:
    from edgekit.cli.console import Terminal

__all__ = ["bisect"]


@command(
    examples=[
        "bisect runs/watch --target tflite",
        "bisect runs/watch --target onnx --artifact onnx-float32 --samples 1",
        "bisect runs/watch --target tflite --split",
    ]
)
@run_argument
@option("-t", "--target", required=True, help="Target whose artifact is examined: onnx, tflite, coreml.")
@option(
    "--artifact", metavar="LABEL", help="Which of the target's artifacts, e.g. tflite-float32.  [default: the compressed one]"
)
@once("--file", "file", type=click.Path(path_type=Path), help="Examine this file in place of the one that was exported.")
@option("--samples", type=click.IntRange(min=1), default=3, show_default=True, help="Golden samples to run.")
@option("--kernels", type=click.Choice(["reference", "shipped"]), default="reference", show_default=True,
        help="The runtime's plainest kernels, or those that ship.")  # fmt: skip
@option("--against", type=click.Choice(["program", "float"]), default="program", show_default=True,
        help="float: also say where accuracy is lost against the float program.")  # fmt: skip
@option("--remedies/--no-remedies", default=True, show_default=True, help="Try what may help, and say whether it did.")
@option("--split/--no-split", default=False, show_default=True,
        help="Also split each layer's error: weights, clipping, rounding, converter rewrite, kernel.")  # fmt: skip
@click.pass_context
def bisect(
    ctx: click.Context,
    terminal: Terminal,
    /,
    run: Path,
    target: str,
    artifact: str | None,
    file: Path | None,
    samples: int,
    kernels: Any,
    against: Any,
    remedies: bool,
    split: bool,
) -> None:
    """Find the first layer at which a file of RUN computes otherwise than the program it was made from.

    Every tensor of the file is matched with the program's by its values, and each layer is computed again from the file's
    own values before it: what it does wrong itself and what it inherits are told apart. Ends with code 1 if a layer
    diverges, naming it, its line, a script that shows it and what was tried against it.
    """
    from edgekit.core.run import RunFolder
    from edgekit.device_tests.bisection.bisect import bisect as bisect_run
    from edgekit.report.bisection import render_terminal

    folder = RunFolder(run)
    folder.manifest()
    with terminal.working(folder) as progress:
        result = bisect_run(
            run, target=target, artifact=artifact, file=file, sample_count=samples, kernels=kernels, against=against,
            remedies=remedies, split=split, progress=progress,
        )  # fmt: skip
    document = {"passed": result.passed, "bisection": result.model_dump(mode="json")}
    terminal.finish(document, lambda console: render_terminal(result, console))
    ctx.exit(ExitCode.OK if result.passed else ExitCode.GATE_MISSED)
