"""The HTML page: complete, self-contained, escaped, truthful about evidence, and whole on disk or absent."""

from __future__ import annotations

import html.parser
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.errors import MissingExtraError, OutputError
from edgekit.core.measurement import Evidence
from edgekit.core.validation import ValidationReport
from edgekit.core.verdict import Verdict
from edgekit.report import notebook_html, page, write_html

VOID = {"meta", "br", "rect", "line", "circle", "path", "polyline"}
FORBIDDEN = "an emulated or reference number must not be called device latency"


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order; keeps text and the sections it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("variant", ["SHIP", "BLOCK", "INCONCLUSIVE"])
def test_page_says_everything(build_report: Callable[[str], ValidationReport], variant: str) -> None:
    report = build_report(variant)
    found = Page(page.page_html(report))
    assert variant in found.text
    for device in report.devices:
        for gate in device.verdict.gates:
            assert gate.found in found.text
            assert gate.limit in found.text
            assert gate.advice in found.text
        assert all(note in found.text for note in device.notes)
        assert all(value in found.text for value in device.facts.values())
    for artifact in report.artifacts:
        assert artifact.label in found.text
        assert artifact.sha256 in found.text
    for layer in report.contract.float_layers:
        assert layer.layer in found.text
        assert layer.reason in found.text
    for entry in report.contract.activations:
        assert entry.name in found.text
    for step in report.compressed.history:
        assert step.summary in found.text
    assert all(digest in found.text for digest in report.compressed.sha256.values())
    assert all(version in found.text for version in report.environment.values())


def test_page_needs_nothing_from_outside(shipping: ValidationReport) -> None:
    text = page.page_html(shipping)
    assert Page(text).tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    assert re.findall(r"https?:|@import|url\(|src=|javascript:", text) == []


def test_page_is_the_same_every_time(shipping: ValidationReport) -> None:
    assert page.page_html(shipping) == page.page_html(shipping)


def test_page_stays_small(shipping: ValidationReport) -> None:
    assert len(page.page_html(shipping).encode()) < 200_000


def test_names_from_a_model_are_escaped(hostile: ValidationReport) -> None:
    for text in (page.page_html(hostile), notebook_html(hostile)):
        found = Page(text)
        assert "script" not in found.tags
        assert "<script>alert(1)</script>" in found.text


def test_reference_times_are_never_device_latency(shipping: ValidationReport) -> None:
    text = page.page_html(shipping)
    [result] = [r for r in shipping.devices[0].results if r.artifact.label == "coreml"]
    latency = result.measurement("latency")
    assert latency is not None
    shown = f"{latency.value:.1f} ms"
    places = [match.start() for match in re.finditer(re.escape(shown), text)]
    heading = text.index("Times that are not device latency")
    assert len(places) == 1
    assert places[0] > heading, FORBIDDEN
    strips = text[text.index("Latency distribution") : heading]
    assert "tflite-float32" in strips
    assert "coreml" not in strips, FORBIDDEN


@pytest.mark.parametrize("kind", [Evidence.EMULATED, Evidence.ESTIMATED])
def test_weak_evidence_is_named_wherever_it_stands(shipping: ValidationReport, kind: Evidence) -> None:
    device = shipping.devices[0]
    results = tuple(
        result.replace(evidence=kind, measurements=tuple(m.replace(evidence=kind) for m in result.measurements))
        for result in device.results
    )
    report = shipping.replace(devices=(device.replace(results=results),))
    found = Page(page.page_html(report)).text
    assert "Latency distribution" not in found
    assert "median device latency" not in found
    assert f"{kind.value} only" in found
    assert "1.99×" not in found, "a speed-up of times that are not measured is no speed-up"


def test_every_cell_of_the_matrix_with_a_number_names_its_evidence(shipping: ValidationReport) -> None:
    text = page.page_html(shipping)
    table = text[text.index('<table class="matrix">') :].split("</table>")[0]
    cells = re.findall(r'<td data-name="([^"]*)">(.*?)</td>', table, re.DOTALL)
    without = {name for name, inner in cells if re.search(r"\d", inner) and 'class="evidence' not in inner}
    assert without == {"size", "contract"}, "sizes and contract entries are read from the file itself"


def test_colours_are_defined_for_light_and_dark(shipping: ValidationReport) -> None:
    style = page.page_html(shipping).split("<style>")[1].split("</style>")[0]
    blocks = [set(re.findall(r"(--[\w-]+):", block)) for block in re.findall(r"\{([^{}]*--ink:[^{}]*)\}", style)]
    assert len(blocks) == 3
    assert blocks[0] == blocks[1] == blocks[2]
    assert set(re.findall(r"var\((--[\w-]+)\)", style)) <= blocks[0]
    assert "prefers-color-scheme: dark" in style


def test_page_without_devices(shipping: ValidationReport) -> None:
    found = Page(page.page_html(shipping.replace(devices=()))).text
    assert "INCONCLUSIVE" in found
    assert "Nothing was validated" in found


def test_page_of_a_float_run(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    artifacts = tuple(a for a in shipping.artifacts if a.precision == "float32")
    results = tuple(r for r in device.results if r.artifact.precision == "float32")
    bare = device.replace(results=results, spreads=(), verdict=Verdict.from_gates(()), notes=())
    contract = shipping.contract.replace(entries=(), float_layers=())
    report = shipping.replace(devices=(bare,), artifacts=artifacts, contract=contract, layer_errors=())
    found = Page(page.page_html(report)).text
    assert "the recipe quantizes nothing" in found
    assert "no gate was asked" in found
    assert "Spread between runtimes" not in found
    assert "What each target honoured" not in found


def test_page_of_a_task_without_evaluation_data(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    results = tuple(result.replace(metric=None) for result in device.results)
    found = Page(page.page_html(shipping.replace(devices=(device.replace(results=results),)))).text
    assert "Latency distribution" in found
    assert "Filled: compressed" not in found


def test_failed_artifact_says_why(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    failed = device.results[2].replace(failure="the runtime crashed", measurements=(), outputs=(), layers=(), metric=None)
    report = shipping.replace(devices=(device.replace(results=(*device.results[:2], failed, *device.results[3:])),))
    for text in (page.page_html(report), notebook_html(report)):
        assert "not run" in Page(text).text
        assert "the runtime crashed" in Page(text).text


def test_artifact_no_runtime_takes_is_listed(shipping: ValidationReport) -> None:
    device = shipping.devices[0]
    some = device.replace(results=device.results[:2])
    found = Page(page.page_html(shipping.replace(devices=(some,)))).text
    assert "The device profile names no runtime for it." in found


def test_two_devices_each_have_a_verdict(build_report: Callable[[str], ValidationReport]) -> None:
    good, bad = build_report("SHIP").devices[0], build_report("BLOCK").devices[0]
    phone = bad.replace(profile=bad.profile.replace(name="phone", title="A phone"))
    found = Page(page.page_html(build_report("SHIP").replace(devices=(good, phone)))).text
    assert "1 of 2 devices does not ship; the first blocks. A phone: 2 of 16 gates failed" in found
    assert "This machine: all 16 gates passed" in found


def test_file_is_whole_or_absent(shipping: ValidationReport, tmp_path: Path) -> None:
    write_html(shipping, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page.page_html(shipping)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((OutputError, NotADirectoryError, FileExistsError)):
        write_html(shipping, tmp_path / "file" / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.html"]


@pytest.fixture
def without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    page._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)


@pytest.mark.usefixtures("without_jinja2")
def test_missing_extra_names_its_command(shipping: ValidationReport, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'edgekit\[report\]'"):
        write_html(shipping, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("without_jinja2")
def test_notebook_without_the_extra_shows_the_terminal_report(shipping: ValidationReport) -> None:
    shown = shipping._repr_html_()
    assert shown is not None
    assert shown.startswith("<pre>")
    assert "SHIP" in shown
    assert "edgekit[report]" in shown


def test_notebook_shows_verdict_matrix_and_figures(build_report: Callable[[str], ValidationReport]) -> None:
    report = build_report("BLOCK")
    shown = report._repr_html_()
    assert shown == notebook_html(report)
    found = Page(shown or "")
    assert {"table", "svg"} <= found.tags
    assert "BLOCK" in found.text
    assert "+1.92 points" in found.text
    assert "html" not in found.tags
