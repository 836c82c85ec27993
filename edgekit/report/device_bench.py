"""Benchmarks of a run's artifacts on devices, in a notebook."""

from __future__ import annotations

import html
import io

from edgekit.core.device_bench import RENDERERS, RunBench
from edgekit.core.errors import MissingExtraError

__all__ = ["RunBench", "notebook_html"]


def notebook_html(found: RunBench) -> str:
    """Tables and figures, as a piece of HTML that brings its own style; without jinja2 what the terminal shows."""
    try:
        from edgekit.report.page import bench_html

        return bench_html(found)
    except MissingExtraError as reason:
        from rich.console import Console

        from edgekit.report.bench_terminal import render_terminal

        stream = io.StringIO()
        render_terminal(found, Console(file=stream, width=120, color_system=None, force_terminal=False, legacy_windows=False))
        return f"<pre>{html.escape(stream.getvalue())}\n{html.escape(str(reason))}</pre>"


RENDERERS["text/html"] = notebook_html
