"""The history as tables and figures: changes, their clearness, evidence; nothing a spreadsheet or a terminal would obey."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from edgekit.core.history_changes import compared, series
from edgekit.core.history_entry import History
from edgekit.core.measurement import Evidence
from edgekit.report import history as shown
from edgekit.report.figure_history import history_figure
from edgekit.report.history_view import history_view
from tests.report.lab_samples import make_history
from tests.report.test_page import Page


def printed(found: History, width: int = 100) -> str:
    stream = io.StringIO()
    shown.render_terminal(found, Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_changes(width: int) -> None:
    text = printed(make_history(), width)
    assert max(map(len, text.splitlines())) <= width
    [worse] = [line for line in text.splitlines() if re.match(r" *19 +host +onnx +0\.1", line)]
    assert re.search(r"\+\d\d\.\d %\*", worse)
    assert "have nothing in common" in text
    assert "Top-1 accuracy" in text
    latencies = text.partition("Latency")[2].partition("Size")[0]
    assert "emulated" not in latencies, "an emulated time is no latency"
    assert ("95 % interval " in text) is (width == 140)


def test_no_entry_is_said() -> None:
    empty = History(entries=())
    assert "no such entry" in printed(empty)
    assert "no such entry" in (empty._repr_html_() or "")


def test_a_notebook_draws_it() -> None:
    found = Page(make_history()._repr_html_() or "")
    assert "svg" in found.tags
    for words in ("Latency on This machine", "watch-1.8", "27 entries", "fail: latency p90 of onnx"):
        assert words in found.text


def test_panels_hold_one_device_one_number_and_one_evidence() -> None:
    view = history_view(make_history())
    keys = [(panel.device, panel.title, panel.evidence) for panel in view.panels]
    assert len(keys) == len(set(keys))
    assert ("Arm Cortex-A72, emulated by qemu", "latency", Evidence.EMULATED) not in keys
    assert sum(panel.title == "size" for panel in view.panels) == 1, "the same file on every device"


@pytest.mark.parametrize("width", [538.0, 360.0])
def test_a_figure_marks_what_is_clear_and_what_is_not_measured(width: int) -> None:
    found = make_history()
    for evidence in (Evidence.MEASURED, Evidence.EMULATED):
        lines = [line for key, line in series(found, "score").items() if key[-1] == evidence.value]
        drawn = history_figure(lines, title="score", width=width)
        ET.fromstring(drawn)
        weak = evidence is Evidence.EMULATED
        assert (drawn.count('class="estimate') == sum(map(len, lines))) is weak
        assert ("line hue-1 weak" in drawn) is weak
    [line] = [line for key, line in series(found, "latency").items() if key[1:3] == ("host", "onnx")]
    drawn = history_figure([line], title="latency", width=width)
    clear = sum(change.is_clear is True or change.before is None for change in line)
    assert drawn.count('class="dot hue-1"') == clear
    assert 1 < clear < len(line)
    assert history_figure([line[:1]], title="latency", width=width) == ""


def test_a_comparison_says_what_else_changed() -> None:
    found = make_history().entries
    stream = io.StringIO()
    changes = compared(found[:1], found[18:19])
    console = Console(file=stream, width=80, color_system=None, force_terminal=False, legacy_windows=False)
    shown.render_comparison(changes, ("1", "19"), console)
    text = stream.getvalue()
    assert "On This machine" in text
    assert "Also changed: edgekit 0.1.0 → 0.3.0." in text
    assert re.search(r"latency .* \+\d+\.\d %\*", text)
    document = shown.change_document(changes[0])
    assert document["before"]["entry"] == 1
    assert document["is_same_file"] is False


def test_csv_has_a_line_for_each_number_and_no_formula(tmp_path: Path) -> None:
    found = make_history(2)
    hostile = found.replace(entries=(found.entries[0].replace(run='=HYPERLINK("x")', recipe="a,b\nc"), *found.entries[1:]))
    shown.write_csv(hostile, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(1 for _ in hostile.rows())
    assert rows[0]["run"] == '\'=HYPERLINK("x")'
    assert rows[0]["recipe"] == "a,b\nc"
    numbers = [number for _, _, number in hostile.rows()]
    assert [float(row["value"]) for row in rows] == [number.value for number in numbers]
    assert [row["low"] == "" for row in rows] == [number.interval is None for number in numbers]


def test_names_from_a_store_are_no_terminal_commands() -> None:
    found = make_history(2)
    entries = tuple(entry.replace(run="a\x1b[31m[bold]", device="b\x1b]0;x") for entry in found.entries)
    assert "\x1b" not in printed(found.replace(entries=entries))


def test_float_baselines_are_shown_where_they_stand_alone() -> None:
    found = make_history(2)
    entries = []
    for entry in found.entries:
        floats = [one.replace(label=f"{one.label}-float32", precision="float32") for one in entry.results]
        entries.append(entry.replace(results=(*entry.results, *floats)))
    both = found.replace(entries=tuple(entries))
    assert both.without_baselines() == found
    assert "onnx-float32" not in printed(both)
    alone = both.replace(entries=tuple(one.replace(results=one.results[-1:]) for one in both.entries))
    assert alone.without_baselines() == alone
    assert "tflite-float32" in printed(alone)


def test_public_names_bring_their_notebook_renderers() -> None:
    code = (
        "import sys, edgekit as ek\n"
        "from edgekit.core import device_bench, history_entry\n"
        "assert not history_entry.RENDERERS and not device_bench.RENDERERS\n"
        "assert callable(ek.history) and ek.RunBench\n"
        "assert history_entry.RENDERERS and device_bench.RENDERERS\n"
        "assert not {'jinja2', 'rich', 'numpy', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
