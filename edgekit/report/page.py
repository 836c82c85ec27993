"""The report as one HTML file, and as a piece of HTML for notebooks.

Templates are filled with what :mod:`edgekit.report.view` prepared. No script, no network: style and figures stand inside.
Everything that comes from a model file is escaped by the template engine, and in figures by :mod:`edgekit.report.svg`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from edgekit.core.errors import MissingExtraError
from edgekit.core.history_entry import History
from edgekit.core.validation import ValidationReport
from edgekit.report import quantities, wording
from edgekit.report.bench_view import bench_views
from edgekit.report.drawn import Drawn
from edgekit.report.error_split import PART_HUES, PART_WORDS, power
from edgekit.report.figure_contract import OUTCOMES
from edgekit.report.figure_history import written
from edgekit.report.figure_operators import KIND_HUES
from edgekit.report.figure_stages import stage_figure
from edgekit.report.gates import OUTCOME_MARKS, OUTCOME_WORDS
from edgekit.report.history import changed
from edgekit.report.history_view import history_view, of_report
from edgekit.report.overview import COLUMNS
from edgekit.report.palette import colour
from edgekit.report.stages import stage_remark, stage_rows, stages_of
from edgekit.report.view import heading_spans, page_view

if TYPE_CHECKING:
    import jinja2

    from edgekit.core.compressed import Compressed
    from edgekit.core.device_bench import BenchedDevice, RunBench

__all__ = ["bench_html", "bench_page_html", "compressed_html", "history_html", "notebook_html", "page_html"]


def page_html(report: ValidationReport, *, benches: Sequence[BenchedDevice] = (), past: History | None = None) -> str:
    """The whole page.

    Args:
        report: What validating found.
        benches: Benchmarks of the same run.
        past: What was found before; entries of other tasks and devices are left out.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    devices = [device.profile.name for device in report.devices]
    own = of_report(past, task=report.compressed.name, devices=devices) if past is not None else None
    view = history_view(own) if own is not None and len(own) > 1 else None
    return _render("page.html.j2", report, benches=bench_views(benches), past=view)


def bench_page_html(run: str, benches: Sequence[BenchedDevice], *, past: History | None = None) -> str:
    """A page of benchmarks alone, for a run that was not validated.

    Args:
        run: The run's name, which is its task's.
        benches: Its benchmarks.
        past: What was found before; entries of other tasks and devices are left out.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    own = of_report(past, task=run, devices=[bench.profile.name for bench in benches]) if past is not None else None
    view = history_view(own) if own is not None and len(own) > 1 else None
    return _filled("bench_page.html.j2", run=run, benches=bench_views(benches), past=view)


def bench_html(found: RunBench) -> str:
    """Benchmarks, as a piece of HTML that brings its own style.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _filled("bench.html.j2", run=found.run, benches=bench_views(found.devices))


def history_html(found: History) -> str:
    """A history, as a piece of HTML that brings its own style.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _filled("history.html.j2", view=history_view(found))


def notebook_html(report: ValidationReport) -> str:
    """Verdict, target matrix and figures, as a piece of HTML that brings its own style.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _render("notebook.html.j2", report)


def compressed_html(compressed: Compressed) -> str:
    """What each step of a recipe did and won, as a piece of HTML that brings its own style.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    stages = stages_of(compressed.record.history)
    return _filled(
        "compressed.html.j2",
        record=compressed.record,
        stages=stage_rows(stages),
        stage_figure=Drawn.by(lambda width: stage_figure(stages, width=width)),
        stage_remark=stage_remark(stages),
    )


def _render(template: str, report: ValidationReport, **more: object) -> str:
    view = page_view(report)
    return _filled(template, **{field.name: getattr(view, field.name) for field in dataclasses.fields(view)}, **more)


def _filled(template: str, **values: object) -> str:
    found = _environment().get_template(template)
    style = resources.files("edgekit.report").joinpath("report.css").read_text(encoding="utf-8").strip()
    return found.render(values, css=style) + "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError as reason:
        raise MissingExtraError("report", module="jinja2") from reason
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgekit.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": quantities.amount,
        "changed": changed,
        "colour": colour,
        "count": quantities.count,
        "decibels": quantities.decibels,
        "duration": quantities.duration,
        "evidence_label": wording.evidence_label,
        "evidence_meaning": wording.EVIDENCE_MEANING.__getitem__,
        "heading_spans": heading_spans,
        "joined": wording.joined,
        "milliseconds": quantities.milliseconds,
        "moment": quantities.moment,
        "outcome_mark": OUTCOME_MARKS.__getitem__,
        "outcome_word": OUTCOME_WORDS.__getitem__,
        "points": quantities.points,
        "power": power,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "ratio": quantities.ratio,
        "share": quantities.share,
        "size": quantities.size,
        "steps": quantities.steps,
        "written": written,
    }
    environment.globals |= {
        "kind_hues": KIND_HUES,
        "milliseconds": quantities.milliseconds,
        "outcomes": OUTCOMES,
        "overview_columns": COLUMNS,
        "part_hues": PART_HUES,
        "part_words": PART_WORDS,
        "size": quantities.size,
    }
    return environment
