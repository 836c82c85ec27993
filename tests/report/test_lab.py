"""Several devices, benchmarks and the past on one page: every cell says what it rests on, and why it is empty."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgekit.core.device_bench import Interference
from edgekit.core.errors import IntegrityError
from edgekit.core.history_store import HistoryStore
from edgekit.core.measurement import Distribution, Evidence, Measurement
from edgekit.core.validation import ValidationReport
from edgekit.report import past_of, write_html
from edgekit.report.bench_view import bench_views, read_benches
from edgekit.report.device_bench import RunBench
from edgekit.report.figure_front import front_figure, points_of_history, points_of_report
from edgekit.report.figure_operators import operator_figure
from edgekit.report.figure_sustained import sustained_figure
from edgekit.report.junit import junit_xml
from edgekit.report.markdown import markdown_summary
from edgekit.report.overview import COLUMNS, overview
from edgekit.report.page import bench_page_html, page_html
from edgekit.report.terminal import plain_text
from tests.report.conftest import RUNTIMES
from tests.report.lab_samples import LAB, make_bench, make_history, make_lab, make_profile
from tests.report.test_page import Page


@pytest.fixture(scope="module")
def lab() -> ValidationReport:
    return make_lab()


@pytest.fixture(scope="module")
def page(lab: ValidationReport) -> str:
    return page_html(lab, benches=[make_bench("pi-5"), make_bench("ethos-u55")], past=make_history())


def part(text: str, begin: str, end: str) -> str:
    assert begin in text, begin
    return text.partition(begin)[2].partition(end)[0]


def test_every_device_and_target_has_a_row(lab: ValidationReport) -> None:
    found = overview(lab)
    assert [one.device.profile.name for one in found] == list(LAB)
    for one in found:
        assert [row.label for row in one.rows] == ["onnx", "tflite", "coreml"]
        for row in one.rows:
            assert bool(row.reason) is (row.target not in LAB[one.device.profile.name][3])
            assert [cell.name for cell in row.cells] == ([] if row.reason else list(COLUMNS))


def test_every_cell_says_what_it_rests_on(lab: ValidationReport) -> None:
    for one in overview(lab):
        for row in one.rows:
            result = next((r for r in one.device.results if r.artifact.label == row.label), None)
            for cell in row.cells:
                assert result is not None
                assert cell.name == "size" or cell.evidence is result.evidence
                if result.evidence in {Evidence.EMULATED, Evidence.REFERENCE} and cell.name == "latency":
                    assert (cell.value, cell.remark) == ("", f"not timed: {result.evidence.value}")
                if result.evidence is Evidence.ESTIMATED and cell.name == "latency":
                    assert cell.value.endswith(" ms")


def test_the_page_shows_the_lab(lab: ValidationReport, page: str) -> None:
    found = Page(page)
    table = part(page, '<table class="overview cards">', "</table>")
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    assert len(rows) == 6 * 3
    for device in lab.devices:
        assert f"{device.profile.title} {device.verdict.decision.value}" in found.text.replace("</a>", "")
        for one in device.skipped:
            assert one.reason in found.text
    assert table.count("not timed: emulated") == 2
    assert table.count('<span class="outcome block">') == 1
    for row in rows:
        assert "not run" in row or row.count('class="evidence') >= len(COLUMNS) - 2, "a cell does not say what it rests on"


def test_the_page_with_everything_needs_nothing_from_outside(page: str) -> None:
    assert Page(page).tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    assert re.findall(r"https?:|@import|url\(|src=|javascript:", page) == []
    assert re.findall(r'href="[^#]', page) == []
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))


def test_what_is_not_measured_is_drawn_as_such(lab: ValidationReport) -> None:
    points = points_of_report(lab)
    assert {point.evidence for point in points} == {Evidence.MEASURED, Evidence.ESTIMATED}, "emulated times are no latency"
    for width in (1116.0, 360.0):
        drawn = front_figure(points, metric="top-1 accuracy", width=width)
        ET.fromstring(drawn)
        estimates = [point for point in points if point.evidence is Evidence.ESTIMATED]
        assert drawn.count('class="estimate') == len(estimates) > 0
        assert "dashed: estimated" in drawn
    measured = [point for point in points if point.evidence is Evidence.MEASURED]
    assert "dashed" not in front_figure(measured, metric="top-1 accuracy", width=1116)


def test_the_front_is_of_measured_points_that_none_beats(lab: ValidationReport) -> None:
    points = [point.__class__(**{**vars(point), "latency_ms": 0.001, "score": 99.0, "low": 99.0, "high": 99.0})
              if point.evidence is Evidence.ESTIMATED else point for point in points_of_report(lab)]  # fmt: skip
    drawn = front_figure(points, metric="m", width=1000)
    [line] = re.findall(r'<polyline points="([^"]*)" class="trend"', drawn)
    corners = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert len(corners) >= 2
    assert corners == sorted(corners)
    assert [y for _, y in corners] == sorted((y for _, y in corners), reverse=True), "slower points of the front are better"
    beaten = {(p.latency_ms, p.score) for p in points if p.evidence is Evidence.MEASURED}
    best = [one for one in beaten if not any(o != one and o[0] <= one[0] and o[1] >= one[1] for o in beaten)]
    assert len(corners) == len(best)


def test_one_device_has_no_overview(build_report: Callable[[str], ValidationReport]) -> None:
    text = page_html(build_report("SHIP"))
    assert "All devices" not in text
    assert 'class="overview' not in text


def test_a_benchmark_is_drawn(page: str) -> None:
    text = part(page, "Benchmark on Raspberry Pi 5", "Benchmark on Arm Ethos-U55")
    found = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    for words in ("single stream", "multi stream", "offline", "p90 ", "p99 ", "disturbed", "time was up at ±3.4 %", "Throttled.",
                  "temperature, °C", "clock, MHz", "minutes from the first window", "QLinearConv × 9", "cold start", "TEST04",
                  "undecided", "Repeated inputs took 0.61", "pi-5 names no runtime for coreml", "fell back"):  # fmt: skip
        assert words in found, words


def test_a_sustained_run_has_one_axis_of_time() -> None:
    run = make_bench().artifacts[0].sustained
    assert run is not None
    drawn = sustained_figure(run, target="onnx", label="onnx", width=1116)
    ET.fromstring(drawn)
    lines = re.findall(r'<polyline points="([^"]*)" class="line[^"]*"', drawn)
    places = {tuple(float(pair.split(",")[0]) for pair in line.split()) for line in lines}
    assert len(lines) == 5, "latency, CPU time, temperature, clock, what others took"
    assert len(places) == 1
    assert sustained_figure(run.replace(windows=run.windows[:1]), target="onnx", label="onnx", width=1116) == ""
    bare = run.replace(windows=tuple(one.replace(temperature_c=None, clock_mhz=None, waiting_share=None) for one in run.windows))
    assert "temperature" not in sustained_figure(bare, target="onnx", label="onnx", width=360)
    weak = run.replace(evidence=Evidence.EMULATED)
    assert "emulated, not the device" in sustained_figure(weak, target="onnx", label="onnx", width=360)


def test_operators_have_bars_by_their_share() -> None:
    profile = make_profile()
    drawn = operator_figure(profile, width=1000)
    ET.fromstring(drawn)
    lengths = [float(found) for found in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)]
    assert len(lengths) == len(profile.by_type())
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[1] / lengths[0] == pytest.approx(profile.by_type()[1].time_ms / profile.by_type()[0].time_ms, abs=0.01)
    assert "fell back" in drawn
    assert operator_figure(profile.replace(operators=()), width=1000) == ""


def test_an_estimate_in_a_benchmark_is_marked(page: str) -> None:
    text = part(page, "Benchmark on Arm Ethos-U55", "What was before")
    assert "measured</span>" not in part(text, "<tbody>", "</tbody>")
    assert 'class="weak"' in text
    assert "estimated" in text


def test_an_emulated_benchmark_shows_no_time() -> None:
    [view] = bench_views([make_bench("cortex-a72")])
    assert {row.reason for row in view.times} == {"not timed: emulated"}
    assert all(value == "" for row in view.times for name, value, *_ in row.cells if name in {"latency", "CPU time", "speed"})


def test_a_benchmark_alone_is_a_page(tmp_path: Path) -> None:
    found = Page(bench_page_html("watch", [make_bench()], past=make_history()))
    assert "not validated" in found.text
    assert "What was before" in found.text
    (tmp_path / "bench").mkdir()
    assert read_benches(tmp_path) == ()
    make_bench().write_json(tmp_path / "bench" / "pi-5.json")
    assert read_benches(tmp_path) == (make_bench(),)
    (tmp_path / "bench" / "pi-5.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"pi-5\.json"):
        read_benches(tmp_path)


def test_a_run_page_draws_what_lies_in_the_run(lab: ValidationReport, tmp_path: Path) -> None:
    lab = lab.replace(devices=lab.devices[:1])
    run = tmp_path / "runs" / "watch"
    (run / "bench").mkdir(parents=True)
    make_bench().write_json(run / "bench" / "pi-5.json")
    write_html(lab, tmp_path / "bare.html", run=None)
    write_html(lab, tmp_path / "first.html", run=run)
    HistoryStore(tmp_path / "runs" / "history.sqlite").append(make_history().entries)
    write_html(lab, tmp_path / "second.html", run=run)
    (tmp_path / "runs" / "history.sqlite").write_text("mine")
    assert past_of(run) is None
    write_html(lab, tmp_path / "third.html", run=run)
    pages = [(tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("bare", "first", "second", "third")]
    assert ["Benchmark on" in text for text in pages] == [False, True, True, True]
    assert ["What was before" in text for text in pages] == [False, False, True, False]


def test_the_past_of_other_tasks_is_left_out(lab: ValidationReport) -> None:
    past = make_history()
    other = past.replace(entries=tuple(entry.replace(task="another") for entry in past.entries))
    assert "What was before" not in page_html(lab.replace(devices=lab.devices[:1]), past=other)


def test_releases_are_numbered(page: str) -> None:
    runs = [f"watch-1.{at}" for at in range(9)]
    points = points_of_history(make_history(), runs)
    assert {point.number for point in points} == set(range(1, 10))
    assert {point.evidence for point in points} == {Evidence.MEASURED}
    past = part(page, "What was before", "</section>")
    assert "intervals apart" in past
    assert "within noise" in past
    assert "watch-1.8" in past


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_all_devices(lab: ValidationReport, width: int) -> None:
    text = plain_text(lab, width=width)
    assert max(map(len, text.splitlines())) <= width
    table = part(text, "All devices", "BLOCK  1 of 6")
    assert table.count("not run") == sum(len(LAB) - sum(target in one[3] for one in LAB.values()) for target in RUNTIMES)
    assert "pi-5 names no runtime for coreml" in text


def test_a_notebook_draws_a_benchmark() -> None:
    drawn = RunBench(run="watch", devices=(make_bench(),))._repr_html_()
    assert drawn is not None
    assert "single stream" in Page(drawn).text


def test_markdown_has_a_table_of_all_devices(lab: ValidationReport) -> None:
    text = markdown_summary(lab)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    [pixel] = [line for line in rows if line.startswith("| Google Pixel 8")]
    assert pixel.count("not run") == 2
    [cortex] = [line for line in rows if line.startswith("| Arm Cortex-A72")]
    assert cortex.count("(emulated), not timed: emulated") == 2
    assert "* coreml did not run here: pi-5 names no runtime for coreml" in text


def test_junit_counts_what_was_skipped(lab: ValidationReport) -> None:
    root = ET.fromstring(junit_xml(lab))
    skipped = sum(len(device.skipped) for device in lab.devices)
    assert int(root.get("skipped", "")) == len(root.findall(".//skipped")) == skipped > 0
    assert int(root.get("tests", "")) == len(root.findall(".//testcase"))
    assert int(root.get("failures", "")) == len(root.findall(".//failure")) > 0
    for suite in root:
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))


def test_hostile_names_of_a_lab_are_escaped(lab: ValidationReport) -> None:
    name = "<script>alert(1)</script>"
    bench = make_bench()
    profile = bench.profile.replace(title=name)
    artifacts = (bench.artifacts[0].replace(label=name, runtime=name, skipped=(name,)), *bench.artifacts[1:])
    past = make_history()
    entries = tuple(entry.replace(run=name, recipe=name, device_title=name) for entry in past.entries)
    device = lab.devices[1]
    skipped = tuple(one.replace(reason=name) for one in device.skipped)
    report = lab.replace(devices=(lab.devices[0], device.replace(profile=device.profile.replace(title=name), skipped=skipped)))
    text = page_html(report, benches=[bench.replace(profile=profile, artifacts=artifacts)], past=past.replace(entries=entries))
    assert "script" not in Page(text).tags


def test_latencies_of_all_devices_stand_on_one_axis(lab: ValidationReport, page: str) -> None:
    strips = part(page, "Latency distribution of the compressed artifacts", "<figcaption>")
    wide = strips.partition('<div class="narrow">')[0]
    names = re.findall(r'class="coloured[^"]*">([^<]+)</text>', wide)
    assert names == ["1 onnx", "1 tflite", "2 onnx", "2 tflite", "3 tflite", "4 onnx", "4 coreml"], "only what was measured"


def test_a_subset_of_the_evaluation_data_is_said(lab: ValidationReport) -> None:
    devices = tuple(device.replace(available_samples=4000) for device in lab.devices[:1])
    [cell, *_] = overview(lab.replace(devices=devices))[0].rows[0].cells
    assert cell.detail.endswith("1,243 of 4,000 samples")
    [cell, *_] = overview(lab)[0].rows[0].cells
    assert "samples" not in cell.detail


def test_estimates_are_listed_with_what_they_rest_on(lab: ValidationReport) -> None:
    [device] = [device for device in lab.devices if device.profile.name == "ethos-u55"]
    result = next(one for one in device.results if one.artifact.label == "tflite")
    cycles = Measurement(name="cycles_npu", value=31487.0, unit="cycles", evidence=Evidence.ESTIMATED, note="of <128> MACs")
    arena = Measurement(name="arena", value=10_352, unit="bytes", evidence=Evidence.ESTIMATED)
    kept = tuple(one for one in result.measurements if one.name != "peak_memory")
    device = device.replace(results=(result.replace(measurements=(*kept, cycles, arena)),))
    report = lab.replace(devices=(lab.devices[0], device))
    text = page_html(report)
    assert "31,487 cycles" in part(text, "<h3>Estimates</h3>", "</section>")
    assert "of &lt;128&gt; MACs" in text
    assert "Times that are not device latency" not in text.partition("<h3>Estimates</h3>")[2].partition("<h2>Layers")[0]
    memory = overview(report)[1].rows[1].cells[2]
    assert (memory.value, memory.evidence) == ("10.4 kB", Evidence.ESTIMATED)


def test_what_a_longer_sentence_says_is_said_once() -> None:
    bench = make_bench()
    first = bench.artifacts[0]
    note = "1 thread; disturbed: others had the processor"
    latency = first.measurements[0].replace(note=note)
    disturbed = Interference(is_flagged=True, sentence="disturbed: others had the processor.")
    changed = first.replace(measurements=(latency, *first.measurements[1:]), interference=disturbed, scenarios=())
    [view] = bench_views([bench.replace(artifacts=(changed,))])
    assert [sentence for label, sentence in view.remarks if label == "onnx"] == [f"latency: {note}"]


def test_few_starts_show_their_range() -> None:
    bench = make_bench()
    start = Measurement(name="cold_load_time", value=41.0, unit="ms", evidence=Evidence.MEASURED,
                        distribution=Distribution.of([40.0, 41.0, 47.0]))  # fmt: skip
    [view] = bench_views([bench.replace(artifacts=(bench.artifacts[0].replace(measurements=(start,)),))])
    [cell] = [cell for cell in view.times[0].cells if cell[0] == "cold start"]
    assert cell[1:3] == ("41.0 ms", "40.0 to 47.0, n = 3")
