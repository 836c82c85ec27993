"""Is a job's result whole, or an error with exit code 4, whenever the link breaks? And does the device keep nothing running?

::

    python benchmarks/link_cuts.py          # 200 cuts and 30 kills: half an hour on an idle machine
    python benchmarks/link_cuts.py --quick  # 10 and 3
    python benchmarks/link_cuts.py --work DIR   # keeps what is done, and goes on where it was interrupted

A real SSH server on loopback (Debian's openssh-server) is the device, edgekit's Python agent runs there, and a proxy between
breaks the link in one of four ways: after a number of bytes, several times in a row, at a moment of the job, or for seconds,
which may be longer than the job's lease. Each row begins with an empty device. Then the process that waits for a job is killed
with ``kill -9`` at a random moment, and another asks for the same. What a run brings is compared, bit by bit, with that of a run
nobody disturbed. This is a test of what breaks; its times say nothing about a device.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import write_results

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the server and the proxy are the tests' own

from edgekit.core.errors import EdgekitError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Answers, Job
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.remote.python_agent import PythonAgent
from edgekit.device_tests.testing import FakeModel
from edgekit.device_tests.transports.ssh import SshLink
from tests.device_tests.remote.cut_proxy import CutProxy
from tests.device_tests.remote.ssh_server import FAKE, SshServer, edgekit_processes, start_sshd

LEASE_S, PATIENCE_S = 5.0, 30.0
KINDS = ("bytes", "bytes", "several", "moment", "away")
SETTLE_S = 4.0
"""A lease is counted in naps of a second, and this machine may be busy."""


def make_job(folder: Path) -> Path:
    """A job of a matrix product in numpy (the lab's test double) with 4000 evaluation samples: 250 kB go, 190 kB come."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    model = FakeModel(weight=tuple(tuple(row) for row in rng.normal(size=(16, 12)).tolist()), bias=(0.0,) * 12)
    artifact = model.export(folder)
    (folder / artifact.label).mkdir()
    artifact.path.rename(folder / artifact.label / artifact.path.name)
    write_arrays(folder / "golden.npz", {"x": rng.normal(size=(4, 1, 16)).astype(np.float32)})
    write_arrays(folder / "evaluation.npz", {"x": rng.normal(size=(4000, 16)).astype(np.float32)})
    shipped = artifact.replace(path=Path(artifact.label, artifact.path.name))
    job = Job(kind="answers", what="answering", runtime=FAKE, threads=1, artifacts=(shipped,))
    job.write_json(folder / "job.json")
    return folder


def transport(profile: DeviceProfile) -> RemoteTransport:
    return RemoteTransport(
        profile, link=SshLink(profile), agent=PythonAgent(profile), lease_s=LEASE_S, patience_s=PATIENCE_S, lock_wait_s=120.0
    )


def carry(profile: DeviceProfile, job: Path) -> tuple[str, int]:
    """One job; how it ended, and how often the link was made anew."""
    made = transport(profile)
    try:
        made.run_agent(job, timeout_s=300.0)
    except EdgekitError as reason:
        return f"exit {reason.exit_code}: {type(reason).__name__}: {reason}", made.reconnections
    except Exception as reason:
        return f"{type(reason).__name__}: {reason}", made.reconnections
    finally:
        made.close()
    return "whole", made.reconnections


def same(job: Path, reference: Path) -> bool:
    """Whether a job folder holds the reference's answers, bit for bit."""
    Answers.read_json(job / "result.json")
    found, expected = read_arrays(job / "outputs.npz"), read_arrays(reference / "outputs.npz")
    return found.keys() == expected.keys() and all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def is_clean(job: Path) -> bool:
    """Nothing of half a result."""
    return not any((job / name).exists() for name in ("result.json", "outputs.npz", "agent.txt")) and not list(
        job.glob(".returned-*")
    )


def orphans(device: Path) -> tuple[int, float]:
    """Processes left when the lease has run out, and how long the last of them lived."""
    begun = time.monotonic()
    while (left := edgekit_processes(device)) and time.monotonic() - begun < LEASE_S + SETTLE_S:
        time.sleep(0.1)
    return len(left), time.monotonic() - begun


def disturb(proxy: CutProxy, rng: random.Random, *, kind: str, size_bytes: int, seconds: float) -> dict[str, Any]:
    """Plan what breaks; returns it in words."""
    proxy.is_down, proxy.plan = False, []
    if kind == "bytes":
        proxy.plan = [rng.randrange(1, size_bytes)]
        return {"after_bytes": list(proxy.plan)}
    if kind == "several":
        proxy.plan = [rng.randrange(1, size_bytes // 2) for _ in range(rng.randrange(2, 6))]
        return {"after_bytes": list(proxy.plan)}
    moment, away = rng.uniform(0.0, seconds), rng.uniform(0.5, 2 * LEASE_S) if kind == "away" else 0.0
    threading.Thread(target=_break, args=(proxy, moment, away), daemon=True).start()
    return {"after_s": round(moment, 2), "away_s": round(away, 2)}


def _break(proxy: CutProxy, moment: float, away: float) -> None:
    time.sleep(moment)
    proxy.is_down = away > 0
    proxy.cut()
    proxy.cuts += 1
    time.sleep(away)
    proxy.is_down = False


class Rows:
    """What is done, in a file that a run which was interrupted goes on from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def done(self, part: str) -> int:
        """How many rows of a part there are."""
        return sum(row["part"] == part for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keep one more."""
        self.rows.append(row)
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def cut_rows(server: SshServer, work: Path, count: int, *, seed: int, rows: Rows) -> None:
    """Runs over a link that breaks."""
    proxy = CutProxy(server.port)
    server.trust(proxy.port)
    reference = make_job(work / "reference")
    begun = time.monotonic()
    outcome, _ = carry(server.profile(port=proxy.port), reference)
    seconds, size_bytes = time.monotonic() - begun, proxy.passed
    if outcome != "whole":
        raise SystemExit(f"an undisturbed run failed: {outcome}")
    for number in range(rows.done("cut"), count):
        kind, rng = KINDS[number % len(KINDS)], random.Random(f"{seed} cut {number}")
        job, device, cuts = make_job(work / f"job-{number}"), server.device_folder(), proxy.cuts
        begun = time.monotonic()
        plan = disturb(proxy, rng, kind=kind, size_bytes=size_bytes, seconds=seconds)
        outcome, reconnections = carry(server.profile(port=proxy.port, folder=device), job)
        took = time.monotonic() - begun
        proxy.is_down, proxy.plan = False, []
        left, lived = orphans(device)
        whole = outcome == "whole"
        row = {
            "part": "cut", "kind": kind, **plan, "outcome": outcome, "cuts": proxy.cuts - cuts, "reconnections": reconnections,
            "equal": same(job, reference) if whole else None, "clean": whole or is_clean(job), "orphans": left,
            "last_process_s": round(lived, 1), "seconds": round(took, 1),
        }  # fmt: skip
        rows.add(row)
        print(f"{number + 1:4} {kind:8} {plan} -> {outcome}, {row['cuts']} cuts, {left} orphans, {took:.1f} s", flush=True)
    proxy.close()


def kill_rows(server: SshServer, work: Path, count: int, *, seed: int, rows: Rows) -> None:
    """The waiting process is killed, and another goes on."""
    for number in range(rows.done("kill"), count):
        rng = random.Random(f"{seed} kill {number}")
        job, device = make_job(work / f"killed-{number}"), server.device_folder()
        profile = server.profile(folder=device)
        (work / "profile.json").write_text(profile.model_dump_json())
        child = subprocess.Popen([sys.executable, __file__, "--carry", work / "profile.json", job], stdout=subprocess.PIPE)
        if child.stdout is None or child.stdout.readline() != b"ready\n":
            raise SystemExit("the process that is to be killed did not start")
        moment = rng.uniform(0.0, 6.0)
        time.sleep(moment)
        ended = child.poll()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        left, lived = orphans(device)
        again = make_job(work / f"again-{number}")
        outcome, _ = carry(profile, again)
        row = {
            "part": "kill", "after_s": round(moment, 2), "had_ended": ended is not None, "orphans": left,
            "last_process_s": round(lived, 1), "next_outcome": outcome,
            "equal": outcome == "whole" and same(again, work / "reference"),
        }  # fmt: skip
        rows.add(row)
        print(f"kill {number + 1} after {moment:.2f} s: {left} orphans after {lived:.1f} s, then {outcome}", flush=True)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts that are asked for."""
    cuts, kills = ([row for row in rows if row["part"] == part] for part in ("cut", "kill"))
    outcomes = Counter(row["outcome"].split(":")[0] for row in cuts)
    return {
        "part": "summary",
        "runs_with_cuts": len(cuts),
        "links_cut": sum(row["cuts"] for row in cuts),
        "whole": outcomes["whole"],
        "exit_4": outcomes["exit 4"],
        "anything_else": len(cuts) - outcomes["whole"] - outcomes["exit 4"],
        "not_equal": sum(row["equal"] is False for row in cuts),
        "half_results": sum(not row["clean"] for row in cuts),
        "orphans": sum(row["orphans"] for row in rows),
        "kills": len(kills),
        "next_run_whole_and_equal": sum(row["equal"] for row in kills),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cuts", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--carry", nargs=2, type=Path, help=argparse.SUPPRESS)  # what the process that is killed does
    options = parser.parse_args()
    if options.carry:
        print("ready", flush=True)
        carry(DeviceProfile.read_json(options.carry[0]), options.carry[1])
        return
    cuts = options.cuts if options.cuts is not None else 10 if options.quick else 200
    kills = options.kills if options.kills is not None else 3 if options.quick else 30
    with tempfile.TemporaryDirectory(prefix="edgekit-cuts-") as folder:
        kept = options.work or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        rows = Rows(kept / "rows.jsonl")
        (work := Path(folder, "work")).mkdir()
        (work / "server").mkdir()
        server = start_sshd(work / "server")
        try:
            cut_rows(server, work, cuts, seed=options.seed, rows=rows)
            kill_rows(server, work, kills, seed=options.seed, rows=rows)
        finally:
            server.stop()
    found = summary(rows.rows)
    settings = {
        "cuts": cuts,
        "kills": kills,
        "seed": options.seed,
        "lease_s": LEASE_S,
        "patience_s": PATIENCE_S,
        "agent": "python",
    }
    path = write_results(
        "link_cuts", [found, *rows.rows], settings=settings, packages=("edgekit", "asyncssh", "numpy"), quick=options.quick
    )
    for name, value in found.items():
        print(f"{name:26} {value}")
    print(path)


if __name__ == "__main__":
    main()
