"""The verdict for continuous integration: JUnit XML and Markdown, golden, complete, and unmoved by hostile names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgekit.core.validation import ValidationReport
from edgekit.core.verdict import Verdict
from edgekit.report.junit import junit_xml, write_junit
from edgekit.report.markdown import markdown_summary, write_markdown

Golden = Callable[[str, str], None]
VARIANTS = ["SHIP", "BLOCK", "INCONCLUSIVE"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden(build_report: Callable[[str], ValidationReport], golden: Golden, variant: str) -> None:
    report = build_report(variant)
    golden(f"report/junit_{variant.lower()}.xml", junit_xml(report))
    golden(f"report/summary_{variant.lower()}.md", markdown_summary(report))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_gate_is_a_test(build_report: Callable[[str], ValidationReport], variant: str) -> None:
    report = build_report(variant)
    root = ET.fromstring(junit_xml(report))
    gates = [gate for device in report.devices for gate in device.verdict.gates]
    assert int(root.get("tests", "")) == len(root.findall(".//testcase")) == len(gates)
    assert int(root.get("failures", "")) == len(root.findall(".//failure")) == sum(g.outcome == "fail" for g in gates)
    assert int(root.get("errors", "")) == len(root.findall(".//error")) == sum(g.outcome == "inconclusive" for g in gates)
    is_green = root.get("failures") == root.get("errors") == "0"
    assert is_green is (report.verdict == "SHIP")
    text = markdown_summary(report)
    assert text.startswith(f"## {report.verdict}: ")
    for gate in gates:
        assert gate.name in text


def test_a_device_without_gates_does_not_pass(shipping: ValidationReport) -> None:
    bare = shipping.devices[0].replace(verdict=Verdict.from_gates([]))
    root = ET.fromstring(junit_xml(shipping.replace(devices=(bare,))))
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error") is not None


def test_reference_times_are_no_latency(shipping: ValidationReport) -> None:
    rows = [line for line in markdown_summary(shipping).splitlines() if line.startswith("| coreml")]
    assert rows
    assert all(" ms " not in row and "not the Neural Engine" in row for row in rows)


def test_hostile_names_stay_text(hostile: ValidationReport) -> None:
    root = ET.fromstring(junit_xml(hostile))
    assert len(root.findall(".//testcase")) == sum(len(device.verdict.gates) for device in hostile.devices)
    text = markdown_summary(hostile)
    assert "\x1b" not in text
    assert "<script" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in tables}
    assert widths <= {6, 7, 9}, "a name with a bar makes no column"


def test_files_are_written_whole(shipping: ValidationReport, tmp_path: Path) -> None:
    write_junit(shipping, tmp_path / "gates.xml")
    write_markdown(shipping, tmp_path / "summary.md")
    assert (tmp_path / "gates.xml").read_text(encoding="utf-8") == junit_xml(shipping)
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == markdown_summary(shipping)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gates.xml", "summary.md"]
