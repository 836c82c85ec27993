"""The system's own counters, with another process on the same processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.core.errors import ProfileError
from edgekit.device_tests.affinity import allowed_processors, keep_to
from edgekit.device_tests.blocks import choose_length, take_block
from edgekit.device_tests.interference import Watch, keep_undisturbed

IN_A_PROCESS = """
import sys, threading
from edgekit.device_tests.affinity import keep_to
from edgekit.device_tests.agent import run
early = threading.Event()
thread = threading.Thread(target=early.wait)
thread.start()  # there before, as a numeric library's may be
keep_to(sys.argv[1])
import os, pathlib
print(sorted({tuple(sorted(os.sched_getaffinity(int(task.name)))) for task in pathlib.Path("/proc/self/task").iterdir()}))
early.set()
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets affinity: runs on Linux")


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@linux
def test_waiting_is_seen_where_another_process_has_the_processor() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel keeps no waiting times: needs CONFIG_SCHED_INFO")
    before = os.sched_getaffinity(0)
    one = min(before)
    neighbour = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{one}}})\nwhile True: pass"])
    try:
        os.sched_setaffinity(0, {one})
        choose_length(lambda: None, 0.01)
        block = take_block(lambda: spin(0.05), 8)
    finally:
        os.sched_setaffinity(0, before)
        neighbour.kill()
        neighbour.wait()
    assert block.waited_ns is not None
    assert block.waited_ns > 0.1 * sum(block.wall_ns)


def test_a_process_that_sleeps_does_not_wait_for_a_processor() -> None:
    choose_length(lambda: None, 0.01)
    block = take_block(lambda: time.sleep(0.02), 5)
    assert block.waited_ns is None or block.waited_ns < 0.5 * sum(block.wall_ns)


def test_the_machines_counters_are_shares() -> None:
    watch = Watch()
    watch.look()
    spin(0.05)
    found = watch.found(waiting_share=0.0, preemption_count=0, round_count=1, discarded_count=0, is_flagged=False)
    for share in (found.other_cpu_share, found.steal_share, found.pressure_share):
        assert share is None or 0 <= share <= 1.2  # the kernel's ticks are 10 ms apart


@pytest.mark.parametrize(("disturbed", "kept", "flagged"), [(0, 10, False), (5, 5, False), (6, 10, True), (10, 10, True)])
def test_rounds_are_left_out_up_to_half(disturbed: int, kept: int, flagged: bool) -> None:
    quiet, is_flagged = keep_undisturbed([0.3] * disturbed + [None, 0.0, 0.01, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0][disturbed:])
    assert (quiet.count(True), is_flagged) == (kept, flagged)


@linux
def test_all_threads_are_kept_to_the_processors() -> None:
    chosen = min(allowed_processors())
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, str(chosen)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == f"[({chosen},)]"


@pytest.mark.parametrize(("affinity", "message"), [("8000", "no 8000"), ("0-", "write processors such as")])
def test_processors_that_are_not_there(affinity: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        keep_to(affinity)


def test_no_affinity_changes_nothing() -> None:
    before = allowed_processors()
    keep_to("")
    assert allowed_processors() == before
