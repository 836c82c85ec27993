"""Rows and ratios of the target matrix, sentences, and numbers that do not flatter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from edgekit.core.measurement import Evidence
from edgekit.core.validation import RENDERERS, ValidationReport
from edgekit.core.verdict import Verdict
from edgekit.report import quantities, wording
from edgekit.report.matrix import rows
from edgekit.report.view import honoured_reasons


def test_each_float_baseline_follows_its_artifact(shipping: ValidationReport) -> None:
    shuffled = shipping.replace(artifacts=shipping.artifacts[::-1])
    found = [row.label for row in rows(shuffled, shuffled.devices[0])]
    assert found == ["coreml", "coreml-float32", "tflite", "tflite-float32", "onnx", "onnx-float32"]


def test_ratios(shipping: ValidationReport) -> None:
    onnx, baseline = rows(shipping, shipping.devices[0])[:2]
    fast = onnx.speed_up
    assert fast is not None
    assert fast.value == pytest.approx(1 / 0.503)
    assert (fast.low, fast.high) == pytest.approx((1 / 0.514, 1 / 0.494))
    assert fast.by_cpu == pytest.approx(1 / 0.498)
    assert onnx.size_ratio == pytest.approx(141_903 / 57_412)
    assert baseline.speed_up is None
    assert baseline.size_ratio is None


def test_reference_evidence_gives_no_latency_and_no_speed_up(shipping: ValidationReport) -> None:
    coreml = rows(shipping, shipping.devices[0])[4]
    assert coreml.label == "coreml"
    assert coreml.latency is None
    assert coreml.cpu_time is None
    assert coreml.speed_up is None
    assert coreml.executor_time is not None
    assert coreml.executor_time.evidence is Evidence.REFERENCE


def test_exact_share_weighs_layers_by_their_values(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    onnx = device.results[0]
    two = (
        onnx.layers[0].replace(value_count=100, exact_share=0.9, largest_steps=1),
        onnx.layers[1].replace(value_count=300, exact_share=0.5, largest_steps=1),
    )
    report = shipping.replace(devices=(device.replace(results=(onnx.replace(layers=two),)),))
    row = rows(report, report.devices[0])[0]
    assert row.exact_share == pytest.approx(0.6)
    assert row.worst_layer == two[1]


def test_reasons_are_grouped(shipping: ValidationReport) -> None:
    found = {(reason.label, reason.outcome): len(reason.names) for reason in honoured_reasons(rows(shipping, None))}
    assert found == {("onnx", "re-typed"): 21, ("tflite", "folded"): 4, ("coreml", "re-typed"): 11, ("coreml", "dropped"): 1}


def test_verdict_sentences(build_report: Callable[[str], ValidationReport]) -> None:
    assert wording.verdict_reason(build_report("SHIP")) == (
        "This machine: all 16 gates passed for onnx, tflite and coreml (coreml by reference: not the Neural Engine)."
    )
    assert wording.verdict_reason(build_report("BLOCK")) == (
        "This machine: 2 of 16 gates failed, first metric drop of tflite: +1.92 points (95 % CI +1.11 to +2.74; 1,243 samples);"
        " the limit is less than 1 points."
    )
    assert wording.verdict_reason(build_report("INCONCLUSIVE")).startswith(
        "This machine: 1 of 16 gates could not be answered: metric drop of onnx: +0.71 points"
    )


def test_verdict_without_gates_is_no_success(shipping: ValidationReport) -> None:
    device = shipping.devices[0].replace(verdict=Verdict.from_gates(()))
    report = shipping.replace(devices=(device,))
    assert report.verdict == "INCONCLUSIVE"
    assert "nothing can be concluded" in wording.verdict_reason(report)


@pytest.mark.parametrize(
    ("value", "shown"), [(1.0, "100 %"), (0.999999, ">99.99 %"), (0.0, "0 %"), (1e-9, "<0.01 %"), (0.8731, "87.31 %")]
)
def test_shares_never_flatter(value: float, shown: str) -> None:
    assert quantities.share(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0, "0 B"), (999, "999 B"), (999_600, "1.00 MB"), (51_304, "51.3 kB")])
def test_sizes(value: int, shown: str) -> None:
    assert quantities.size(value) == shown


def test_negative_and_missing_numbers() -> None:
    assert quantities.points(-0.001, signed=True) == "0.00"
    assert quantities.points(-1.234) == "-1.23"
    assert quantities.milliseconds(None) == quantities.NOTHING
    assert quantities.significant(float("inf")) == "inf"
    assert quantities.moment("yesterday") == "yesterday"


def test_importing_the_report_loads_no_renderer_and_enters_the_notebook_hook() -> None:
    code = (
        "import sys, edgekit.report;"
        "from edgekit.core.validation import RENDERERS;"
        "heavy = {'rich', 'jinja2', 'matplotlib', 'numpy', 'torch'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy or 'text/html' not in RENDERERS else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_name_brings_the_notebook_renderer() -> None:
    code = (
        "import edgekit; edgekit.ValidationReport;"
        "from edgekit.core.validation import RENDERERS, ValidationReport;"
        "assert edgekit.ValidationReport is ValidationReport;"
        "assert RENDERERS"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_renderer_a_notebook_falls_back(shipping: ValidationReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RENDERERS, "text/html")
    assert shipping._repr_html_() is None


def test_spread_is_explained_only_where_there_is_one(shipping: ValidationReport) -> None:
    spreads = shipping.devices[0].spreads
    assert "drift apart" in wording.spread_remark(spreads)
    same = [spread.replace(snr_db=None, identical_share=1.0) for spread in spreads]
    assert wording.spread_remark(same) == "Every pair answers bit for bit the same over the whole evaluation set."
