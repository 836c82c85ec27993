"""Options of every command that runs model files: runtime, threads, and the runtime's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from edgekit.cli.options import option

__all__ = ["running_options"]


def running_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the function gets ``runtime``, ``threads``, ``settings``, ``timeout``, ``memory``."""
    for add in reversed((
        option("--runtime", metavar="NAME",
               help="Run it with this runtime instead of its format's own (edgekit doctor lists them)."),
        option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads the runtime may use."),
        option("-O", "--option", "settings", metavar="NAME=VALUE", multiple=True,
               help="Option of the runtime: provider=xnnpack|builtin|PATH (TFLite), provider=cpu|cuda|..., io_binding=true"
                    " (ONNX), provider=all|cpu|gpu|neural-engine, precision=float32 (Core ML). May be repeated."),
        option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
               help="Seconds that loading or one step may take."),
        option("--memory", type=click.IntRange(min=1), metavar="MIB",
               help="Most memory the model may take; by default three quarters of the machine's."),
    )):  # fmt: skip
        function = add(function)
    return function
