"""A verdict as JUnit XML, which continuous integration shows as tests: one for each gate.

A gate that failed is a failure, one that could not be answered an error: neither lets a release through. An artifact that is not
for a device is a test that was skipped. The dialect is the one
all of Jenkins, GitLab and GitHub's reporters read (``testsuites/testsuite/testcase`` with ``failure`` and ``error``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from edgekit.core.files import write_text
from edgekit.core.verdict import Gate, Outcome

if TYPE_CHECKING:
    from edgekit.core.validation import DeviceResult, ValidationReport

__all__ = ["junit_xml", "write_junit"]

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped (https://www.w3.org/TR/xml/#charsets)."""


def junit_xml(report: ValidationReport) -> str:
    """The report's gates as an XML document: a suite for each device, a test for each gate."""
    root = ET.Element("testsuites", name=f"edgekit {_clean(report.compressed.name)}")
    for device in report.devices:
        root.append(_suite(device, created=report.created))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    if skipped := sum(len(device.skipped) for device in report.devices):
        root.set("skipped", str(skipped))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write_junit(report: ValidationReport, path: Path) -> None:
    """Write :func:`junit_xml` whole or not at all.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    write_text(path, junit_xml(report))


def _suite(device: DeviceResult, *, created: str) -> ET.Element:
    suite = ET.Element("testsuite", name=_clean(device.profile.name), timestamp=created, time=f"{device.seconds:.3f}")
    gates = device.verdict.gates
    _count(suite, gates)
    if not gates:  # a suite without tests reads as one that passed
        case = ET.SubElement(suite, "testcase", classname=_clean(device.profile.name), name="verdict")
        ET.SubElement(case, "error", type="inconclusive", message="No gate was asked.")
        suite.set("tests", "1")
        suite.set("errors", "1")
    for gate in gates:
        suite.append(_case(device, gate))
    if device.skipped:
        suite.set("tests", str(int(suite.get("tests", "0")) + len(device.skipped)))
        suite.set("skipped", str(len(device.skipped)))
    for one in device.skipped:
        classname = _clean(f"{device.profile.name}.{one.label}")
        ET.SubElement(ET.SubElement(suite, "testcase", classname=classname, name="runs"), "skipped", message=_clean(one.reason))
    return suite


def _case(device: DeviceResult, gate: Gate) -> ET.Element:
    case = ET.Element("testcase", classname=_clean(f"{device.profile.name}.{gate.target}"), name=_clean(gate.name))
    words = f"found: {gate.found}\nallowed: {gate.limit}"
    if gate.outcome is Outcome.PASS:
        ET.SubElement(case, "system-out").text = _clean(words)
        return case
    failed = gate.outcome is Outcome.FAIL
    kind = ET.SubElement(
        case, "failure" if failed else "error", type="gate" if failed else "inconclusive", message=_clean(gate.found)
    )
    kind.text = _clean(f"{words}\n{gate.advice}".strip())
    return case


def _count(element: ET.Element, gates: list[Gate] | tuple[Gate, ...]) -> None:
    outcomes = [gate.outcome for gate in gates]
    element.set("tests", str(len(outcomes)))
    element.set("failures", str(outcomes.count(Outcome.FAIL)))
    element.set("errors", str(outcomes.count(Outcome.INCONCLUSIVE)))


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
