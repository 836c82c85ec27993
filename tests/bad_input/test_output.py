"""Output that exists, cannot be written, or finds the disk full."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.bad_input.conftest import contents

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # no file may grow beyond: what a full disk does to a writer
from edgekit.cli import main
main(sys.argv[1:], prog_name="edgekit")
"""


def test_a_run_that_exists_is_not_touched(refused: Callable[..., str], compressed: Path) -> None:
    message = refused("compress task.py -o runs/tiny", 2)
    assert (
        f"{compressed.relative_to(compressed.parents[1])} exists already. Choose another folder, or replace it with --force"
        in message
    )


def test_a_folder_that_is_no_run_is_not_replaced_even_by_force(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "task.py").write_text("")
    assert "is not a run folder" in refused("compress task.py -o runs/mine --force", 2)


def test_force_replaces_a_run_only_once_the_new_one_is_whole(
    refused: Callable[..., str], write_task: Callable[..., Path], compressed: Path
) -> None:
    write_task(calibration="[]")
    assert "calibration data is empty" in refused("compress task.py -o runs/tiny --force", 2)
    assert (compressed / "compressed" / "program.pt2").is_file()


def test_force_replaces_a_run(command_line: Callable[..., Result], write_task: Callable[..., Path], compressed: Path) -> None:
    (compressed / "old.txt").write_text("left from before")
    write_task()
    assert command_line("compress task.py -o runs/tiny --force").exit_code == 0
    assert (compressed / "edgekit.json").is_file()
    assert not (compressed / "old.txt").exists()


def test_a_place_that_cannot_be_written(refused: Callable[..., str], write_task: Callable[..., Path], tmp_path: Path) -> None:
    write_task()
    (tmp_path / "file").write_text("not a folder")
    message = refused("compress task.py -o file/run", 2)
    assert "file/run" in message


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes with setrlimit: runs on Linux and macOS")
@pytest.mark.parametrize("line", ["compress task.py -o runs/tiny --force", "export runs/tiny -t onnx"])
def test_a_full_disk(compressed: Path, line: str) -> None:
    folder = compressed.parents[1]
    before = contents(folder / "runs")
    command = [sys.executable, "-c", LIMITED, *line.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(folder / "runs") == before
