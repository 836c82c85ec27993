"""The terminal report: golden text at 80 and 120 columns, nothing wider than the terminal, no escape codes from names."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from edgekit.core.validation import ValidationReport
from edgekit.report import render_terminal
from edgekit.report.terminal import plain_text

Golden = Callable[[str, str], None]


def trimmed(text: str) -> str:
    """Without the spaces that fill a table's last column, which an editor would remove from a golden file."""
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("variant", ["SHIP", "BLOCK", "INCONCLUSIVE"])
def test_golden(build_report: Callable[[str], ValidationReport], golden: Golden, variant: str, width: int) -> None:
    golden(f"report/terminal_{variant.lower()}_{width}.txt", trimmed(plain_text(build_report(variant), width=width)))


@pytest.mark.parametrize("width", [60, 80, 100, 110, 120, 200])
def test_no_line_is_wider_than_the_terminal(build_report: Callable[[str], ValidationReport], width: int) -> None:
    lines = plain_text(build_report("BLOCK"), width=width).splitlines()
    assert max(len(line) for line in lines) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off_at_ordinary_widths(build_report: Callable[[str], ValidationReport], width: int) -> None:
    assert "…" not in plain_text(build_report("BLOCK"), width=width)


@pytest.mark.parametrize("variant", ["SHIP", "BLOCK", "INCONCLUSIVE"])
def test_the_verdict_is_last(build_report: Callable[[str], ValidationReport], variant: str) -> None:
    last = plain_text(build_report(variant), width=400).rstrip().splitlines()[-1]
    assert last.startswith(variant)


def test_colour_adds_no_words(shipping: ValidationReport) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system="standard", record=True)
    render_terminal(shipping, console)
    assert "\x1b[" in stream.getvalue()
    assert trimmed(console.export_text()) == trimmed(plain_text(shipping, width=80))


def test_names_from_a_model_are_text(hostile: ValidationReport) -> None:
    shown = plain_text(hostile, width=200)
    assert "\x1b" not in shown
    assert "[bold]" in shown


def test_reference_times_stand_apart(shipping: ValidationReport) -> None:
    shown = plain_text(shipping, width=80)
    latency = shown[shown.index("Device latency") : shown.index("Footprint")]
    assert "tflite-float32" in latency
    assert "coreml" not in latency
    apart = shown[shown.index("Not device latency") :]
    assert "coreml 39.2 ms per inference" in apart
    assert "Neural Engine" in apart


def test_every_table_with_numbers_of_a_runtime_names_the_evidence(shipping: ValidationReport) -> None:
    shown = plain_text(shipping, width=80)
    lines = [line for line in shown.splitlines() if line.startswith("coreml ") and "per inference" not in line]
    assert [line for line in lines if not line.rstrip().endswith("reference")] == [
        line for line in lines if line.split() == ["coreml", "31", "11", "0", "1"]
    ], "only the contract's counts, read from the file, rest on no runtime"


def test_report_without_devices(shipping: ValidationReport) -> None:
    shown = plain_text(shipping.replace(devices=()), width=80)
    assert "INCONCLUSIVE" in shown
    assert "Nothing was validated" in shown


def test_failure_is_told(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    failed = device.results[0].replace(failure="the runtime crashed", measurements=(), outputs=(), layers=(), metric=None)
    shown = plain_text(shipping.replace(devices=(device.replace(results=(failed, *device.results[1:])),)), width=80)
    assert "onnx: the runtime crashed" in shown


def test_two_devices_are_told_apart(build_report: Callable[[str], ValidationReport]) -> None:
    good, bad = build_report("SHIP").devices[0], build_report("BLOCK").devices[0]
    phone = bad.replace(profile=bad.profile.replace(name="phone", title="A phone"))
    shown = plain_text(build_report("SHIP").replace(devices=(good, phone)), width=120)
    assert shown.index("On This machine") < shown.index("On A phone")
    assert shown.rstrip().splitlines()[-1].strip()
    assert "1 of 2 devices does not ship" in shown
