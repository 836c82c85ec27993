"""The command line: one file per command, loaded when it is called.

This module and what it imports at the top load nothing but click, so that ``edgekit --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, cast

import click

from edgekit.cli.exit_codes import explain_failure

__all__ = ["COMMANDS", "EXAMPLES", "main"]

COMMANDS = {
    "calibrate": "Is a task's calibration data good enough, and how many samples are needed?",
    "sensitivity": "Which layers of a task's model hurt when they become integers?",
    "compress": "Make a task's model small: write a run folder with the compressed program.",
    "sweep": "Which pruning ratio is worth it? Several compress runs, and their front of accuracy, size and latency.",
    "export": "Convert a run's program into files for its targets.",
    "validate": "Run a run's artifacts on devices and decide: SHIP, BLOCK or INCONCLUSIVE.",
    "audit": "Re-read a run's files and prove that they hold what the recipe claims.",
    "selftest": "Run the golden self-test that travels with each artifact of a run.",
    "inspect": "List what a model file holds: operations, shapes, work, size by layer, metadata.",
    "diff": "Show what tells two model files, or two runs, apart.",
    "run": "Run a model file of any format on given inputs, in a confined process.",
    "bench": "Time model files on this machine, and show where their time goes.",
    "bisect": "Find the first layer at which a run's file computes otherwise than its program.",
    "exactness": "Prove that every runtime computes the same bits, or name the layers that prevent it.",
    "report": "Show what validating a run found.",
    "history": "Show what validations and benches found over time, and what changed.",
    "demo": "Compress, export, validate and report in one go.",
    "recipes": "List the words of which recipes are made.",
    "capabilities": "List which operators become integers, and what runs them on each target.",
    "devices": "List device profiles.",
    "jobs": "Carry a validation's work to a device that no network reaches, and its results back.",
    "runner": "Build the C++ program that runs models where there is no Python.",
    "doctor": "Show what is installed, and which targets and runtimes work here.",
}
"""Command -> the line ``edgekit --help`` shows for it; the command's own file is not loaded for that."""

EXAMPLES = (
    "compress task.py --recipe int8 -o runs/watch",
    "export runs/watch --target onnx --target tflite --target coreml",
    "validate runs/watch --device host",
    "report runs/watch",
)
"""Command lines without the leading ``edgekit``. A test runs each of them, in this order."""

_EXIT_CODES = (
    "0 done, 1 a gate was missed, 2 usage, 3 not convertible, 4 device lost,",
    "5 damaged file, 70 a bug in edgekit, 130 interrupted",
)


class _Main(click.Group):
    """Loads a command's file when the command is called, and turns every failure into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in COMMANDS:
            return None
        return cast("click.Command", getattr(importlib.import_module(f"edgekit.cli.{cmd_name}"), cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        for title, rows in (("Examples", [f"edgekit {example}" for example in EXAMPLES]), ("Exit codes", _EXIT_CODES)):
            with formatter.section(title):
                for row in rows:
                    formatter.write(f"  {row}\n")

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from edgekit.core.errors import nearest

            raise click.UsageError(f"Unknown command '{args[0]}'.{nearest(args[0], COMMANDS)} See edgekit --help.", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from edgekit.cli.configuration import project_settings

        words = list(ctx.args)
        # Torch's waiting threads spin by default: beside other work that makes calibrating a small net tens of times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            ctx.default_map = project_settings(COMMANDS)
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except BaseException as reason:
            ctx.exit(explain_failure(reason, ctx, as_json="--json" in words))


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import edgekit

        click.echo(f"edgekit {edgekit.__version__}")
        ctx.exit()


@click.group(
    cls=_Main,
    context_settings={"auto_envvar_prefix": "EDGEKIT", "help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version.")
def main() -> None:
    """Compress a trained model once, ship the same integers to every edge runtime, and prove it.

    Every command takes --help, --json, -q, -v. Options can also be set in the table [tool.edgekit] of
    ./pyproject.toml, or by the environment variables their help shows.
    """
