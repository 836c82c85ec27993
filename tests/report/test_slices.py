"""Slices are shown once for all artifacts that score the same, in the terminal and on the page."""

from __future__ import annotations

from edgekit.core.validation import SliceResult, ValidationReport
from edgekit.report.page import page_html
from edgekit.report.slices import sliced
from edgekit.report.terminal import plain_text


def part(name: str, drop: float) -> SliceResult:
    return SliceResult(
        group="person", name=name, sample_count=40, value=0.8, float_value=0.8 + drop / 100, drop_points=drop,
        drop_interval=(drop - 2, drop + 2), lowest_drop_points=drop - 3, flip_count=1,
    )  # fmt: skip


def with_slices(report: ValidationReport) -> ValidationReport:
    device = report.devices[0]
    results = []
    for result in device.results:
        alike = (part("ann", 3.0), part("<b>bob</b>", -1.0))
        slices = (part("ann", 9.0),) if result.artifact.target == "tflite" else alike
        metric = result.metric.replace(slices=slices) if result.metric is not None else None
        results.append(result.replace(metric=metric))
    return report.replace(devices=(device.replace(results=tuple(results)),))


def test_artifacts_that_score_alike_share_rows(shipping: ValidationReport) -> None:
    found = sliced(with_slices(shipping).devices[0].results)
    assert [labels for labels, _ in found] == [("onnx", "coreml"), ("tflite",)]


def test_shown_in_terminal_and_page(shipping: ValidationReport) -> None:
    report = with_slices(shipping)
    text = plain_text(report, width=100)
    assert "Slices with the largest drop" in text
    assert "person ann" in text
    page = page_html(report)
    assert "<h2>Slices</h2>" in page
    assert "onnx and coreml" in page
    assert "<b>bob</b>" not in page
    assert "Slices" not in plain_text(shipping, width=100)
