"""The stage-gain table: on the terminal, on the page and as a picture; steps without gain are named, evidence is shown."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from edgekit.core.compressed import Compressed, Golden, StepRecord
from edgekit.core.contract import QuantizationContract
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.stages import Stage, TimedProgram
from edgekit.core.validation import ValidationReport
from edgekit.report import page
from edgekit.report.figure_stages import stage_figure
from edgekit.report.page import notebook_html, page_html
from edgekit.report.stages import render_stages, stages_of
from edgekit.report.terminal import plain_text

DID_NOT = "'sparse50' did not help: MACs, top-1 accuracy, size and latency are as before."


def stage(
    label: str,
    macs: int,
    change: tuple[float, float, float],
    size: int,
    speedup: float,
    *,
    evidence: Evidence = Evidence.MEASURED,
    remark: str = "",
) -> Stage:
    latency = Measurement(name="latency", value=0.187 / speedup, unit="ms", evidence=evidence)
    interval = (1.0, 1.0) if speedup == 1 else (speedup - 0.05, speedup + 0.05)
    timed = TimedProgram(
        target="onnx", device="host", latency=latency, size_bytes=size, speedup=speedup, speedup_interval=interval
    )
    return Stage(
        label=label,
        macs=macs,
        parameter_count=macs // 300,
        metric_name="top-1 accuracy",
        metric=0.8912 + change[1],
        change=change[1],
        change_interval=(change[0], change[2]),
        timed=timed,
        helped=not remark,
        remark=remark,
    )


def make_history(evidence: Evidence = Evidence.MEASURED) -> tuple[StepRecord, ...]:
    found = [
        stage("dense", 10_322_048, (0, 0, 0), 141_903, 1.0, evidence=evidence),
        stage("prune50", 5_100_000, (-0.031, -0.021, -0.011), 75_000, 1.85, evidence=evidence),
        stage("distill", 5_100_000, (-0.0082, -0.0032, 0.0021), 75_000, 1.86, evidence=evidence),
        stage("sparse50", 5_100_000, (-0.0101, -0.0047, 0.0006), 75_001, 1.85, evidence=evidence, remark=DID_NOT),
        stage("int8", 5_100_000, (-0.0061, -0.0011, 0.0041), 22_000, 3.4, evidence=evidence),
    ]
    return tuple(StepRecord(kind="step", summary=one.label, seconds=1, cpu_seconds=1, stage=one) for one in found)


@pytest.fixture
def report(build_report: Callable[[str], ValidationReport]) -> ValidationReport:
    made = build_report("SHIP")
    return made.replace(compressed=made.compressed.replace(history=make_history()))


def printed(history: tuple[StepRecord, ...], width: int) -> str:
    stream = io.StringIO()
    render_stages(history, Console(file=stream, width=width, color_system=None, legacy_windows=False))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_terminal(width: int, golden: Callable[[str, str], None]) -> None:
    text = printed(make_history(), width)
    assert all(len(line) <= width for line in text.splitlines() if "─" in line or "×" in line)
    golden(f"report/stages_{width}.txt", text)


def test_report_holds_the_table(report: ValidationReport) -> None:
    text = plain_text(report)
    assert text.index("What each step won") < text.index("SHIP")
    assert DID_NOT in text


def test_page_and_notebook(report: ValidationReport) -> None:
    whole = page_html(report)
    assert "What each step won" in whole
    assert whole.count('class="stage idle') == 2 * 3  # wide and narrow; MACs, size and latency
    for found in (whole, notebook_html(report)):
        assert "no gain" in found
        assert "2.02× fewer" in found
        assert "-0.82 to +0.21" in found
        assert "&#39;sparse50&#39; did not help" in found


def test_times_that_are_not_the_devices_are_not_called_latency() -> None:
    weak = make_history(Evidence.REFERENCE)
    text = printed(weak, 120)
    assert "latency" not in text.replace(DID_NOT, "")
    assert "(reference: not the vendor's kernels)" in text
    assert ">latency<" not in stage_figure(stages_of(weak), width=600)


@pytest.mark.parametrize("width", [360, 1116])
def test_figure_is_drawn_inside_its_frame(width: int) -> None:
    drawn = ET.fromstring(stage_figure(stages_of(make_history()), width=width))
    height = float(drawn.attrib["height"])
    boxes = [element for element in drawn.iter() if element.tag == "rect"]
    assert len(boxes) == 5 * 3
    for box in boxes:
        x, y, across, down = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert (x >= 0, y >= 0, x + across <= width, y + down <= height) == (True,) * 4
    dense, pruned, *_ = (float(box.attrib["width"]) for box in boxes)
    assert pruned / dense == pytest.approx(5_100_000 / 10_322_048, rel=0.01)


def test_nothing_is_shown_where_nothing_was_measured(build_report: Callable[[str], ValidationReport]) -> None:
    bare = build_report("SHIP")
    assert "What each step won" not in page_html(bare) + plain_text(bare) + notebook_html(bare)
    assert stage_figure(stages_of(make_history()[:1]), width=600) == ""


def test_stages_without_a_file_show_what_was_counted() -> None:
    counted = tuple(
        step.replace(stage=step.stage and step.stage.replace(timed=None, metric=None, change=None, change_interval=None))
        for step in make_history()
    )
    assert "10.3 M" in printed(counted, 80)
    assert "Only counted: no file was made" in printed(counted, 80)
    assert "MACs" in stage_figure(stages_of(counted), width=600)


def test_a_notebook_draws_what_compress_returns(report: ValidationReport, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = QuantizationContract()
    nothing: Any = None  # no program is drawn
    made = Compressed(
        program=nothing, float_program=nothing, contract=empty, record=report.compressed, golden=Golden(inputs={}, outputs={})
    )
    drawn = made._repr_html_()
    assert drawn is not None
    assert drawn.count("<svg") == 2
    assert "sparse50" in drawn
    assert "no gain" in drawn
    page._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "edgekit[report]" in (made._repr_html_() or "")
    page._environment.cache_clear()
