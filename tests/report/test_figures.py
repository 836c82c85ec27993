"""Figures: well-formed, inside their frame, honest about what they leave out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from xml.etree import ElementTree as ET

import pytest

from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.validation import LayerError, ValidationReport
from edgekit.report.figure_contract import contract_bars
from edgekit.report.figure_latency import latency_strips
from edgekit.report.figure_layers import layer_figure
from edgekit.report.figure_tradeoff import against_latency, against_size
from edgekit.report.layers import layers, worst_layers
from edgekit.report.matrix import Row, rows
from edgekit.report.svg import Scale, text_width

WIDTHS = [360.0, 538.0, 1116.0]


def drawings(report: ValidationReport, width: float) -> Iterator[tuple[str, str]]:
    matrix = rows(report, report.devices[0])
    yield "latency", against_latency(matrix, width=width)
    yield "size", against_size(matrix, width=width)
    yield "strips", latency_strips(matrix, width=width)
    yield "layers", layer_figure(layers(report, matrix), [row.target for row in matrix if row.layers], width=width)
    yield "contract", contract_bars(matrix, width=width)


def labels(drawing: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(drawing).iter("text")]


def kind(drawing: str, name: str) -> list[ET.Element]:
    return [node for node in ET.fromstring(drawing).iter() if name in (node.get("class") or "").split()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("variant", ["SHIP", "BLOCK"])
def test_figures_are_well_formed_and_stay_inside(
    build_report: Callable[[str], ValidationReport], variant: str, width: float
) -> None:
    for name, drawing in drawings(build_report(variant), width):
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        height = float(root.get("height", "0"))
        for node in root.iter():
            for x in ("x", "x1", "x2", "cx"):
                assert -0.01 <= float(node.get(x, "0")) <= width + 0.01, f"{name}: {ET.tostring(node)!r}"
            for y in ("y", "y1", "y2", "cy"):
                assert -0.01 <= float(node.get(y, "0")) <= height + 0.01, f"{name}: {ET.tostring(node)!r}"
            assert not {"fill", "stroke", "style"} & set(node.keys()), "colours belong to the style sheet"


def boxes(drawing: str, name: str) -> list[tuple[float, float, float, float]]:
    found = []
    for node in kind(drawing, name):
        width = text_width(node.text or "")
        left = float(node.get("x", "0")) - {"middle": width / 2, "end": width}.get(node.get("text-anchor", ""), 0.0)
        bottom = float(node.get("y", "0"))
        found.append((left, bottom - 10, left + width, bottom))
    return found


@pytest.mark.parametrize("width", [360.0, 538.0])
@pytest.mark.parametrize("variant", ["SHIP", "BLOCK"])
def test_names_do_not_cover_each_other(build_report: Callable[[str], ValidationReport], variant: str, width: float) -> None:
    report = build_report(variant)
    matrix = rows(report, report.devices[0])
    for drawing in (against_latency(matrix, width=width), against_size(matrix, width=width)):
        for a, b in itertools.combinations(boxes(drawing, "coloured"), 2):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_reference_artifacts_have_no_latency_but_a_size(shipping: ValidationReport) -> None:
    matrix = rows(shipping, shipping.devices[0])
    assert not any("coreml" in label for label in labels(against_latency(matrix, width=538)))
    assert "coreml (reference)" in labels(against_size(matrix, width=538))
    assert not any("coreml" in label for label in labels(latency_strips(matrix, width=538)))


def test_each_artifact_is_one_dot(shipping: ValidationReport) -> None:
    drawing = against_size(rows(shipping, shipping.devices[0]), width=538)
    assert len(kind(drawing, "dot")) == 3
    assert len(kind(drawing, "hollow")) == 3
    assert len(kind(drawing, "whisker")) == 3


def test_small_accuracy_differences_do_not_fill_the_axis(shipping: ValidationReport) -> None:
    matrix = rows(shipping, shipping.devices[0])
    drawing = against_size([row for row in matrix if row.is_baseline], width=538)
    ticks = [float(label) for label in labels(drawing) if label.replace(".", "").isdigit() and 80 < float(label) < 100]
    assert max(ticks) - min(ticks) >= 0.5, "three equal scores: the axis still spans about a point"


def test_nothing_to_draw(shipping: ValidationReport) -> None:
    assert against_latency([], width=400) == ""
    assert against_size([], width=400) == ""
    assert latency_strips([], width=400) == ""
    assert layer_figure([], [], width=400) == ""
    assert contract_bars([], width=400) == ""
    without = [Row(artifact=artifact, result=None) for artifact in shipping.artifacts]
    assert against_size(without, width=400) == ""


def test_worst_layers_are_named(shipping: ValidationReport) -> None:
    found = layers(shipping, rows(shipping, shipping.devices[0]))
    assert [layer.name for layer in worst_layers(found)] == ["blocks.3.depthwise", "blocks.2.pointwise", "head.logits"]
    drawing = layer_figure(found, [], width=1116)
    assert any(label.startswith("blocks.3.depthwise 23.4 dB") for label in labels(drawing))


def test_parity_cells_tell_exact_from_beyond(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    onnx = device.results[0]
    broken = onnx.layers[0].replace(largest_steps=4, exact_share=0.5)
    changed = onnx.replace(layers=(broken, *onnx.layers[1:]))
    report = shipping.replace(devices=(device.replace(results=(changed, *device.results[1:])),))
    drawing = layer_figure(layers(report, rows(report, report.devices[0])), ["onnx", "tflite", "coreml"], width=1116)
    assert len(kind(drawing, "beyond")) == 1
    assert len(kind(drawing, "cell")) == 20 + 16 + 19
    assert len(kind(drawing, "absent")) == 4 + 1
    assert len(kind(drawing, "exact")) >= 19


def test_layer_without_a_float_value_is_no_noiseless_layer(shipping: ValidationReport) -> None:
    first, second, *others = shipping.layer_errors
    unknown = LayerError(entry=first.entry, inherited_snr_db=None, reason="the float program has no such value")
    noiseless = LayerError(entry=second.entry, inherited_snr_db=None)
    report = shipping.replace(layer_errors=(unknown, noiseless, *others))
    drawing = layer_figure(layers(report, ()), [], width=1116)
    assert len(kind(drawing, "hollow")) == 1


def test_hundreds_of_layers_fit(shipping: ValidationReport) -> None:
    entry = shipping.contract.activations[-1]
    entries = tuple(entry.replace(name=f"layer.{index}") for index in range(400))
    errors = tuple(LayerError(entry=e.name, inherited_snr_db=30.0 - i / 40) for i, e in enumerate(entries))
    report = shipping.replace(contract=shipping.contract.replace(entries=entries), layer_errors=errors)
    for width in WIDTHS:
        drawing = layer_figure(layers(report, ()), [], width=width)
        assert all(float(node.get("x", "0")) <= width for node in kind(drawing, "tick"))
        assert 5 <= len(kind(drawing, "tick")) <= 60


def timed(row: Row, samples: list[float]) -> Row:
    assert row.result is not None
    found = Distribution.of(samples)
    latency = Measurement(name="latency", value=found.p50, unit="ms", evidence=Evidence.MEASURED, distribution=found)
    return Row(artifact=row.artifact, result=row.result.replace(measurements=(latency,)))


def test_axis_is_logarithmic_only_for_very_different_latencies(shipping: ValidationReport) -> None:
    first, second = rows(shipping, shipping.devices[0])[:2]
    near = latency_strips([timed(first, [1.0, 1.1]), timed(second, [2.0, 2.1])], width=700)
    far = latency_strips([timed(first, [0.01, 0.011]), timed(second, [2.0, 2.1])], width=700)
    assert any("from zero" in label for label in labels(near))
    assert any("logarithmic" in label for label in labels(far))


def test_interruptions_are_counted_instead_of_stretching_the_axis(shipping: ValidationReport) -> None:
    row = timed(rows(shipping, shipping.devices[0])[0], [1.0] * 95 + [90.0] * 5)
    drawing = latency_strips([row], width=700)
    assert any(label.startswith("5.0 % beyond · p50 1.00") for label in labels(drawing))
    assert any("from zero" in label for label in labels(drawing))
    assert max(float(label) for label in labels(drawing) if label.replace(".", "").isdigit()) < 3


def test_one_sample_is_enough(shipping: ValidationReport) -> None:
    row = rows(shipping, shipping.devices[0])[0]
    assert "p50 1.00" in " ".join(labels(latency_strips([timed(row, [1.0])], width=700)))


def test_contract_bar_shows_every_outcome(shipping: ValidationReport) -> None:
    drawing = contract_bars(rows(shipping, None), width=1116)
    assert [len(kind(drawing, name)) > 0 for name in ("honoured", "re-typed", "folded", "dropped")] == [True] * 4
    assert {"22", "21", "39", "4", "31", "11", "1"} <= set(labels(drawing))


def test_scale_ticks_are_round_and_inside() -> None:
    assert Scale(low=0, high=0.93, start=0, end=1).ticks(5) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert Scale(low=88.41, high=89.54, start=0, end=1).ticks(5) == [88.5, 88.75, 89.0, 89.25, 89.5]
    assert Scale(low=0.3, high=30, start=0, end=1, logarithmic=True).ticks() == [0.5, 1, 2, 5, 10, 20]
    assert Scale(low=1, high=100, start=0, end=10, logarithmic=True)(10) == pytest.approx(5)
