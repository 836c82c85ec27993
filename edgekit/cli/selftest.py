"""``edgekit selftest``: does every artifact of a run still answer as it did when it was made?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.exit_codes import ExitCode
from edgekit.cli.options import command, option, run_argument

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.artifact import Artifact
    from edgekit.core.run import RunFolder
    from edgekit.core.selftest import SelfTestResult

__all__ = ["selftest"]


@command(examples=["selftest runs/watch", "selftest runs/watch --artifact onnx --json"])
@run_argument
@option("-a", "--artifact", "labels", multiple=True,
        help="Only this artifact (onnx, onnx-float32, ...). May be repeated.")  # fmt: skip
@click.pass_context
def selftest(ctx: click.Context, terminal: Terminal, /, run: Path, labels: tuple[str, ...]) -> None:
    """Run the golden self-test that travels with each artifact of RUN, in the runtime that is installed here.

    A few inputs and the answers they must give lie in artifacts/NAME/selftest. Ends with code 1 if any output is further off
    than its tolerance.
    """
    from edgekit import golden
    from edgekit.core.run import RunFolder

    folder = RunFolder(run)
    folder.manifest()
    results = []
    with terminal.working(folder) as progress:
        chosen = _chosen(folder, labels)
        for done, artifact in enumerate(chosen):
            progress(f"self-test {artifact.label}", done, len(chosen))
            results.append(golden.selftest(artifact, log=folder.log))
        progress("self-test", len(chosen), len(chosen))
    passed = all(result.passed for result in results)
    terminal.finish(_document(results, passed=passed), lambda console: _print(console, results))
    ctx.exit(ExitCode.OK if passed else ExitCode.GATE_MISSED)


def _chosen(run: RunFolder, labels: Sequence[str]) -> list[Artifact]:
    """The artifacts asked for; all that carry a self-test where none is named.

    Raises:
        UsageError: There is none, or none of that name.
    """
    from edgekit.core.errors import UsageError, nearest

    known = {artifact.label: artifact for artifact in run.load_artifacts()}
    if not known:
        raise UsageError(f"{run.path} holds no artifacts. Make some with: edgekit export {run.path} --target onnx")
    for label in labels:
        if label not in known:
            raise UsageError(f"{run.path} has no artifact '{label}'; it has {', '.join(known)}.{nearest(label, known)}")
    found = [known[label] for label in labels] or [artifact for artifact in known.values() if artifact.selftest is not None]
    if not found:
        raise UsageError(f"No artifact of {run.path} carries a self-test. Export again with this version of edgekit.")
    return found


def _document(results: Sequence[SelfTestResult], *, passed: bool) -> dict[str, Any]:
    rows = [{**result.model_dump(mode="json"), "passed": result.passed} for result in results]
    return {"passed": passed, "results": rows}


def _print(console: Console, results: Sequence[SelfTestResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("artifact", "output"):
        table.add_column(title, overflow="fold")
    for title in ("largest", "allowed", "rms", "allowed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for result in results:
        for output in result.outputs:
            numbers = (output.difference, output.tolerance, output.rms, output.rms_tolerance)
            verdict = Text("ok", style="green") if output.passed else Text("FAILED", style="bold red")
            table.add_row(Text(result.artifact), Text(output.name), *(_number(value) for value in numbers), verdict)
    console.print(table)
    for runtime in dict.fromkeys(result.runtime for result in results):
        names = ", ".join(result.artifact for result in results if result.runtime == runtime)
        console.print(f"{names}: run by {runtime}", style="dim", markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"
