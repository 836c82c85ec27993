"""Bars: done, rate and time left where the amount is known, else the time it has taken."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from edgekit.cli.progress import bars, lines


def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()).strip()


def test_a_known_amount_has_count_and_rate() -> None:
    terminal = console()
    with bars(terminal) as progress:
        for done in range(41):
            progress("calibrate", done, 40)
    last = text_of(terminal).splitlines()[-1]
    assert "✓ calibrate" in last
    assert "40/40" in last


@pytest.mark.parametrize(("total", "shown"), [(40, r"\d/s, 0:\d\d left"), (4, r"1/4 0:00$")])
def test_only_pieces_that_are_alike_have_a_rate(total: int, shown: str) -> None:
    terminal = console()
    with pytest.raises(KeyboardInterrupt), bars(terminal) as progress:
        progress("work", 0, total)
        time.sleep(0.05)
        progress("work", 1, total)
        time.sleep(0.05)
        progress("work", total // 4, total)
        raise KeyboardInterrupt
    assert re.search(shown, text_of(terminal).splitlines()[-1]), text_of(terminal)


def test_an_unknown_amount_ends_when_the_next_begins() -> None:
    terminal = console()
    with bars(terminal) as progress:
        progress("load task", 0, None)
        progress("capture", 0, None)
        assert "✓" not in text_of(terminal).splitlines()[-1]
    assert [line.split("━")[0].strip() for line in text_of(terminal).splitlines()[-2:]] == ["✓ load task", "✓ capture"]


def test_pieces_of_one_count_share_a_bar() -> None:
    terminal = console()
    with bars(terminal) as progress:
        progress("run onnx", 0, 2)
        progress("run tflite", 1, 2)
        progress("validated", 2, 2)
    (line,) = text_of(terminal).splitlines()[-1:]
    assert line.startswith("✓ validated")
    assert "2/2" in line
    assert "✓ run" not in text_of(terminal)


def test_fewer_than_asked_for_are_all_there_are() -> None:
    terminal = console()
    with bars(terminal) as progress:
        progress("calibrate", 64, 512)
        progress("export", 0, None)
    assert "64/64" in text_of(terminal).splitlines()[-2]


def test_what_failed_is_not_ticked_off() -> None:
    terminal = console()

    def work() -> None:
        with bars(terminal) as progress:
            progress("capture", 0, None)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert "✓" not in text_of(terminal)


def test_lines_name_each_piece_once() -> None:
    terminal = console()
    with lines(terminal) as progress:
        for done in range(3):
            progress("calibrate", done, 2)
        progress("export onnx", 0, None)
        progress("export", 1, 1)
    assert text_of(terminal).splitlines() == ["calibrate …", "export onnx …", "export"]
