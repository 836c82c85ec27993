"""The report as one HTML file, and as a piece of HTML for notebooks.

Templates are filled with what :mod:`edgekit.report.view` prepared. No script, no network: style and figures stand inside.
Everything that comes from a model file is escaped by the template engine, and in figures by :mod:`edgekit.report.svg`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from importlib import resources
from typing import TYPE_CHECKING

from edgekit.core.errors import MissingExtraError
from edgekit.core.validation import ValidationReport
from edgekit.report import quantities, wording
from edgekit.report.error_split import PART_HUES, PART_WORDS, power
from edgekit.report.figure_contract import OUTCOMES
from edgekit.report.figure_stages import stage_figure
from edgekit.report.gates import OUTCOME_MARKS, OUTCOME_WORDS
from edgekit.report.palette import colour
from edgekit.report.stages import stage_remark, stage_rows, stages_of
from edgekit.report.view import Drawn, heading_spans, page_view

if TYPE_CHECKING:
    import jinja2

    from edgekit.core.compressed import Compressed

__all__ = ["compressed_html", "notebook_html", "page_html"]


def page_html(report: ValidationReport) -> str:
    """The whole page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _render("page.html.j2", report)


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


def _render(template: str, report: ValidationReport) -> str:
    view = page_view(report)
    return _filled(template, **{field.name: getattr(view, field.name) for field in dataclasses.fields(view)})


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
    }
    environment.globals |= {
        "milliseconds": quantities.milliseconds,
        "outcomes": OUTCOMES,
        "part_hues": PART_HUES,
        "part_words": PART_WORDS,
        "size": quantities.size,
    }
    return environment
