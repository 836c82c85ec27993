"""A whole emulated arm64 machine as a device: int8 answers against this machine's, and power cuts in the middle of jobs.

::

    apt-get install qemu-system-arm mmdebstrap e2fsprogs openssh-client g++-aarch64-linux-gnu cmake
    python examples/assets.py litert-arm64 onnxruntime-arm64
    python benchmarks/arm64_vm.py                       # boots it, answers, four power cuts
    python benchmarks/arm64_vm.py --quick               # two power cuts

The power goes at a moment drawn at random within a job. What must follow is a whole result, equal to the undisturbed one,
or a DeviceError (exit code 4); anything else counts as wrong. The job after it must succeed. Where the job ended first, nothing
was cut, and ``was_cut`` says so.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lab.devices import Row, ask, count_differences, explain, int8_artifacts, samples_of
from lab.exactness import Floats
from lab.results import write_results
from rich.console import Console

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError, EdgekitError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.transports.local import LocalTransport
from edgekit.device_tests.transports.qemu_vm import QemuVmTransport
from edgekit.device_tests.virtual_machine.image import image_folder

EXAMPLE = "smartwatch"
SAMPLES = 200
CUT_SAMPLES = 500
"""Sending and answering so many takes long enough to be cut anywhere."""
CUTS = 4
PACKAGES = ("edgekit", "onnxruntime", "ai-edge-litert", "asyncssh", "numpy")


def answer(profile: DeviceProfile, machine: QemuVmTransport, artifacts: dict[str, Artifact]) -> Iterator[Row]:
    """Each target's answers on the machine and here."""
    host, samples = load_profile("host"), samples_of(EXAMPLE, SAMPLES)
    for target, artifact in artifacts.items():
        expected, _ = ask(host, LocalTransport(host), artifact, samples)
        found, seconds = ask(profile, machine, artifact, samples)
        row: Row = {"part": "answers", "fixture": EXAMPLE, "recipe": "int8", "target": target, "evidence": "emulated"}
        yield {**row, **count_differences(found, expected, artifact), "job_s": round(seconds, 1)}


def cut(profile: DeviceProfile, machine: QemuVmTransport, artifact: Artifact, samples: Floats, *, after_s: float) -> Row:
    """One job during which the power goes after so many seconds."""
    if machine.machine is None:
        raise DeviceError("The machine is not running.")
    cut_power, row = machine.machine.cut_power, Row(part="power cut", target=artifact.target, after_s=round(after_s, 2))
    timer = threading.Timer(after_s, cut_power)
    start = time.monotonic()
    timer.start()
    try:
        found, _ = ask(profile, machine, artifact, samples)
        row |= {"outcome": "whole", "answers": found}
    except DeviceError as reason:
        row |= {"outcome": "DeviceError", "message": explain(reason)}
    except EdgekitError as reason:
        row |= {"outcome": "another error", "message": explain(reason)}
    finally:
        row["was_cut"] = not timer.is_alive()
        timer.cancel()
    return {**row, "job_s": round(time.monotonic() - start, 1)}


def cut_often(profile: DeviceProfile, machine: QemuVmTransport, artifact: Artifact, *, count: int) -> Iterator[Row]:
    """Power cuts at random moments of a job, each followed by a job that must succeed."""
    samples, chosen = samples_of(EXAMPLE, CUT_SAMPLES), random.Random(0)
    expected, _ = ask(profile, machine, artifact, samples)
    _, job_s = ask(profile, machine, artifact, samples)  # the files are there now, as they are for those that follow
    for _ in range(count):
        row = cut(profile, machine, artifact, samples, after_s=chosen.uniform(0, job_s))
        answers = row.pop("answers", None)
        if answers is not None:
            row["is_equal"] = bool(np.array_equal(answers, expected))
        try:
            after, _ = ask(profile, machine, artifact, samples[:5])
            row["next_job"] = "whole" if np.array_equal(after, expected[:5]) else "wrong"
        except EdgekitError as reason:
            row["next_job"] = explain(reason)
        yield row


def is_right(row: Row) -> bool:
    """Whether a row is as it must be."""
    if row["part"] == "answers":
        return row["differing_count"] == 0 and row["different_values"] > 10
    return row["next_job"] == "whole" and (row["outcome"] == "DeviceError" or bool(row.get("is_equal")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two power cuts: does it work?")
    parser.add_argument("--work", type=Path, help="folder that keeps the run  [default: a temporary one]")
    arguments = parser.parse_args()
    console, profile = Console(width=130), load_profile("arm64-vm")
    was_made = (image_folder() / "disk").is_file()
    rows = list[Row]()
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = int8_artifacts(EXAMPLE, arguments.work or Path(temporary))
        machine = QemuVmTransport(profile)
        try:
            start = time.monotonic()
            facts = machine.facts()
            settings: Row = {
                "device": {key: facts[key] for key in ("processor", "architecture", "cores", "memory", "system version")},
                "emulator": facts["emulator"],
                "boot_s": round(machine.boot_s, 1),
                "image_and_boot_s": None if was_made else round(time.monotonic() - start, 1),
            }
            cuts = cut_often(profile, machine, artifacts["tflite"], count=2 if arguments.quick else CUTS)
            for row in itertools.chain(answer(profile, machine, artifacts), cuts):
                rows.append(row)
                console.print({key: value for key, value in row.items() if key != "part"})
                settings["wrong_count"] = sum(not is_right(one) for one in rows)
                path = write_results("arm64_vm", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
        finally:
            machine.close()
    console.print(f"boot: {settings['boot_s']} s; wrong: {settings['wrong_count']} of {len(rows)}; written: {path}")


if __name__ == "__main__":
    main()
