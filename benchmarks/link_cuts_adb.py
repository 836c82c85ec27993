"""Is a job's result whole, or an error with exit code 4, whenever the link to an Android device breaks?

::

    python benchmarks/link_cuts_adb.py          # 200 breaks and 30 kills: about 20 minutes on an idle core
    python benchmarks/link_cuts_adb.py --quick  # 10 and 3

The real ``adb`` client (Debian's) talks to a test daemon on loopback, which is no Android device and says so; there
edgekit-runner answers an int8 ONNX file. The link breaks at a message that is drawn by chance:

======= ==========================================================================================================
cut     every connection ends before the message
tear    in the middle of it
several it ends, is made anew and ends again, two to five times
away    it ends, and none is taken for up to ten seconds
reboot  every process on the device ends, and it comes back with another boot's number
stall   the connection stays, and nothing passes any more
======= ==========================================================================================================

Every tenth row begins with an empty device, so that runner and library travel too. Then the process that waits for a job is
killed with ``kill -9`` at a random moment, and another asks for the same. What a run brings is compared, bit by bit, with that of
a run nobody disturbed. This is a test of what breaks; its times say nothing about a device.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
from lab.results import write_results
from link_cuts import is_clean, same

from edgekit.core.artifact import Artifact
from edgekit.core.device_link import Finished
from edgekit.core.errors import EdgekitError
from edgekit.core.files import sha256
from edgekit.core.profile import DeviceProfile
from edgekit.core.tensors import TensorSpec
from edgekit.device_tests.arrays import write_arrays
from edgekit.device_tests.jobs import Job
from edgekit.device_tests.native_agent import NativeAgent
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.transports.adb import AdbLink
from edgekit.device_tests.transports.adb import link as link_module
from edgekit.runtimes.native.build import build_runner
from edgekit.runtimes.native.libraries import library_of
from tests.device_tests.adb_daemon.device import AdbServer, TestDevice, missing

LEASE_S, PATIENCE_S = 5.0, 40.0
SETTLE_S = 10.0
"""A lease is counted in naps of a second, and this machine may be busy."""
KINDS = ("cut", "tear", "cut", "several", "tear", "away", "reboot", "cut", "tear", "stall")
SHAPE = (1, 3, 9, 7)


class ImpatientLink(AdbLink):
    """Takes a device that says nothing for five seconds as lost, where a lab would wait a minute."""

    def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        """See :meth:`AdbLink.run`."""
        return super().run(command, timeout_s=min(timeout_s, 5.0), given=given)


link_module._SILENCE_S = 5.0  # the same for files
link_module._PING_S = 2.0


def make_model(folder: Path) -> Artifact:
    """A convolution on int8 tensors between Q/DQ nodes."""
    rng = np.random.default_rng(0)
    constants = {
        "s_x": np.float32(0.02), "z_x": np.int8(3), "z_w": np.zeros(8, np.int8), "s_y": np.float32(0.05), "z_y": np.int8(-7),
        "s_w": rng.uniform(0.002, 0.01, 8).astype(np.float32), "w": rng.integers(-127, 128, (8, 3, 3, 3), np.int8),
    }  # fmt: skip
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s_x", "z_x"], ["xq"]), make("DequantizeLinear", ["xq", "s_x", "z_x"], ["xd"]),
        make("DequantizeLinear", ["w", "s_w", "z_w"], ["wd"], axis=0), make("Conv", ["xd", "wd"], ["c"]),
        make("QuantizeLinear", ["c", "s_y", "z_y"], ["yq"]), make("DequantizeLinear", ["yq", "s_y", "z_y"], ["y"]),
    ]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "int8", [value("x", 1, SHAPE)], [value("y", 1, (1, 8, 7, 5))],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    path = folder / "int8.onnx"
    path.write_bytes(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )
    return Artifact(
        target="onnx", path=path, sha256=sha256(path), size_bytes=path.stat().st_size, precision="int8",
        inputs=(TensorSpec(name="x", shape=SHAPE, dtype="float32"),),
        outputs=(TensorSpec(name="y", shape=(1, 8, 7, 5), dtype="float32"),),
    )  # fmt: skip


def make_job(folder: Path, model: Artifact) -> Path:
    """A job with 400 evaluation samples: 300 kB to send, 450 kB to fetch, besides runner and library."""
    rng = np.random.default_rng(1)
    place = Path("models", model.path.name)
    (folder / place).parent.mkdir(parents=True)
    shutil.copy(model.path, folder / place)
    write_arrays(folder / "golden.npz", {"x": rng.standard_normal((4, *SHAPE), np.float32)})
    write_arrays(folder / "evaluation.npz", {"x": rng.standard_normal((400, *SHAPE[1:]), np.float32)})
    job = Job(kind="answers", what="answering", runtime="onnxruntime", threads=1, artifacts=(model.replace(path=place),))
    job.write_json(folder / "job.json")
    return folder


def carry(profile: DeviceProfile, job: Path) -> tuple[str, int]:
    """One job; how it ended, and how often the link was made anew."""
    made = RemoteTransport(
        profile,
        link=ImpatientLink(profile),
        agent=NativeAgent(profile),
        lease_s=LEASE_S,
        patience_s=PATIENCE_S,
        lock_wait_s=120.0,
    )
    try:
        made.run_agent(job, timeout_s=300.0)
    except EdgekitError as reason:
        return f"exit {reason.exit_code}: {type(reason).__name__}: {reason}", made.reconnections
    except Exception as reason:
        return f"{type(reason).__name__}: {reason}", made.reconnections
    finally:
        made.close()
    return "whole", made.reconnections


def disturb(device: TestDevice, rng: random.Random, *, kind: str, messages: int) -> dict[str, Any]:
    """Plan what breaks; returns it in words."""
    at = rng.randrange(1, messages + 1)
    if kind == "several":
        places = sorted(rng.randrange(1, messages + 1) for _ in range(rng.randrange(2, 6)))
        device.cut_several(places)
        return {"at": places}
    if kind == "away":
        down_s = round(rng.uniform(0.5, 2 * LEASE_S), 2)
        device.fail("cut", at=at, down_s=down_s)
        return {"at": at, "down_s": down_s}
    device.fail(kind, at=at)
    return {"at": at}


def orphans(device: TestDevice) -> tuple[int, float]:
    """Processes left on the device when the lease has run out, and how long the last of them lived."""
    begun = time.monotonic()
    left = device.orphans(within_s=LEASE_S + SETTLE_S)
    return len(left), time.monotonic() - begun


def break_rows(device: TestDevice, profile: DeviceProfile, work: Path, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Runs over a link that breaks."""
    model = make_model(work)
    reference = make_job(work / "reference", model)
    device.count()
    outcome, _ = carry(profile, reference)
    if outcome != "whole":
        raise SystemExit(f"an undisturbed run failed: {outcome}")
    full = int(device.ask()["messages"])
    device.count()
    carry(profile, make_job(work / "again", model))
    messages = {True: full, False: int(device.ask()["messages"])}
    rows = []
    for number in range(count):
        is_empty = number % 10 == 9
        if is_empty:
            shutil.rmtree(device.data / "edgekit", ignore_errors=True)
        kind = KINDS[(number + number // 10) % len(KINDS)]
        job, boots = make_job(work / f"job-{number}", model), device.boots
        plan = disturb(device, rng, kind=kind, messages=messages[is_empty])
        begun = time.monotonic()
        outcome, reconnections = carry(profile, job)
        took = time.monotonic() - begun
        device.mend()
        left, lived = orphans(device)
        whole = outcome == "whole"
        row = {
            "part": "break", "kind": kind, **plan, "empty_device": is_empty, "outcome": outcome, "reconnections": reconnections,
            "reboots": device.boots - boots, "equal": same(job, reference) if whole else None, "clean": whole or is_clean(job),
            "orphans": left, "last_process_s": round(lived, 1), "seconds": round(took, 1),
        }  # fmt: skip
        rows.append(row)
        print(f"{number + 1:4} {kind:8} {plan} -> {outcome}, {reconnections} new links, {left} orphans, {took:.1f} s", flush=True)
        shutil.rmtree(job)
    return rows


def kill_rows(device: TestDevice, profile: DeviceProfile, work: Path, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """The waiting process is killed, and another goes on."""
    model, rows = make_model(work), []
    (work / "profile.json").write_text(profile.model_dump_json())
    for number in range(count):
        job = make_job(work / f"killed-{number}", model)
        child = subprocess.Popen([sys.executable, __file__, "--carry", work / "profile.json", job], stdout=subprocess.PIPE)
        if child.stdout is None or child.stdout.readline() != b"ready\n":
            raise SystemExit("the process that is to be killed did not start")
        moment = rng.uniform(0.0, 4.0)
        time.sleep(moment)
        ended = child.poll()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        left, lived = orphans(device)
        again = make_job(work / f"after-{number}", model)
        outcome, _ = carry(profile, again)
        equal = outcome == "whole" and same(again, work / "reference")
        row = {
            "part": "kill", "after_s": round(moment, 2), "had_ended": ended is not None, "orphans": left,
            "last_process_s": round(lived, 1), "next_outcome": outcome, "equal": equal,
        }  # fmt: skip
        rows.append(row)
        print(f"kill {number + 1} after {moment:.2f} s: {left} orphans after {lived:.1f} s, then {outcome}", flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts that are asked for."""
    breaks, kills = ([row for row in rows if row["part"] == part] for part in ("break", "kill"))
    outcomes = Counter(row["outcome"].split(":")[0] for row in breaks)
    return {
        "part": "summary",
        "runs_with_breaks": len(breaks),
        "whole": outcomes["whole"],
        "exit_4": outcomes["exit 4"],
        "anything_else": len(breaks) - outcomes["whole"] - outcomes["exit 4"],
        "not_equal": sum(row["equal"] is False for row in breaks),
        "half_results": sum(not row["clean"] for row in breaks),
        "reboots": sum(row["reboots"] for row in breaks),
        "orphans": sum(row["orphans"] for row in rows),
        "kills": len(kills),
        "next_run_whole_and_equal": sum(row["equal"] for row in kills),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--breaks", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--carry", nargs=2, type=Path, help=argparse.SUPPRESS)  # what the process that is killed does
    options = parser.parse_args()
    if options.carry:
        print("ready", flush=True)
        carry(DeviceProfile.read_json(options.carry[0]), options.carry[1])
        return
    if reason := missing():
        raise SystemExit(reason)
    breaks = options.breaks if options.breaks is not None else 10 if options.quick else 200
    kills = options.kills if options.kills is not None else 3 if options.quick else 30
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="edgekit-adb-cuts-") as folder:
        work = Path(folder)
        (work / "home").mkdir()
        server, device = AdbServer(work / "home"), TestDevice(work / "device")
        connection = {
            "serial": device.serial, "server_port": server.port, "folder": "/data/local/tmp/edgekit",
            "runner": str(build_runner()), "library": str(library_of("onnx")),
        }  # fmt: skip
        choice = {"onnx": {"runtime": "onnxruntime", "evidence": "emulated"}}
        fields = {"name": "daemon", "title": "edgekit's adb test daemon", "transport": "adb", "runtimes": choice}
        profile = DeviceProfile.parse({**fields, "connection": connection}, source="link_cuts_adb.py")
        try:
            rows = break_rows(device, profile, work, breaks, rng) + kill_rows(device, profile, work, kills, rng)
        finally:
            device.stop()
            server.stop()
    found = summary(rows)
    settings = {
        "breaks": breaks, "kills": kills, "seed": options.seed, "lease_s": LEASE_S, "patience_s": PATIENCE_S,
        "agent": "native", "adb": adb_version(), "device": "edgekit's adb test daemon (no Android device)",
    }  # fmt: skip
    path = write_results(
        "link_cuts_adb", [found, *rows], settings=settings, packages=("edgekit", "onnxruntime", "numpy"), quick=options.quick
    )
    for name, value in found.items():
        print(f"{name:26} {value}")
    print(path)


def adb_version() -> str:
    """What the client calls itself."""
    lines = subprocess.run(["adb", "version"], capture_output=True, text=True, check=True).stdout.splitlines()
    return " ".join(lines[:2])


if __name__ == "__main__":
    main()
