"""Damaged files by the thousand, opened as a user's file is: do callers live, are limits kept, is nothing written elsewhere?

::

    make fuzz N=2000                                  # what continuous integration does, about a minute
    python benchmarks/fuzz.py --count 100000          # most of an hour on two cores; goes on where it was interrupted
    python benchmarks/fuzz.py --count 5000 --only onnx --seed 7
    python benchmarks/fuzz.py --keep                  # take what did something new into the committed corpus

Mutants are made of small models of every format and of edgekit's own files, by bytes and by structure. Each is copied, hashed,
and opened in a confined child (here forked from a server that has the runtime imported): listed, loaded, run once. One that
does something new becomes a seed. It ends with code 1 if a caller died, a limit was exceeded, or a file was written elsewhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzzing.campaign import Share, Tally
from fuzzing.corpus import CORPUS, Corpus
from fuzzing.examination import CPU_S, MEMORY_BYTES, TIMEOUT_S
from lab.results import write_results

PACKAGES = ("edgekit", "ai-edge-litert", "onnx", "onnxruntime", "coremltools", "torch", "numpy")
LARGEST_COMMITTED = 9_000
"""Bytes of a mutant that is taken into the committed corpus."""
QUICK = 50_000
"""Fewer mutants than this give a result for continuous integration, which git ignores."""


def share(arguments: argparse.Namespace) -> None:
    """One of the processes."""
    folder = Path(arguments.work) / f"share-{arguments.share}"
    folder.mkdir(parents=True, exist_ok=True)
    one = Share(folder, seed=arguments.seed, number=arguments.share, jobs=arguments.jobs, only=tuple(arguments.only))

    def tell(tally: Tally) -> None:
        print(f"share {arguments.share}: {tally.done} mutants, {tally.done / tally.seconds:.0f}/s", flush=True)

    one.run(arguments.count, tell)


def start(arguments: argparse.Namespace, number: int, work: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).resolve()), "--share", str(number), "--work", str(work)]
    command += ["--count", str(arguments.count), "--seed", str(arguments.seed), "--jobs", str(arguments.jobs)]
    only = [word for name in arguments.only for word in ("--only", name)]
    return subprocess.Popen([*command, *only], env={**os.environ, "OMP_NUM_THREADS": "1"})


def supervise(arguments: argparse.Namespace, work: Path) -> int:
    """Start the processes, and again where one dies; how many died."""
    running = {number: start(arguments, number, work) for number in range(arguments.jobs)}
    deaths = 0
    while running:
        time.sleep(0.2)
        for number, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[number]
            if code:
                deaths += 1
                last = work / f"share-{number}" / "last.json"
                if not last.is_file():
                    sys.exit(f"share {number} could not start; see above")
                print(f"share {number} ended with code {code} at {last.read_text()}")
                if deaths < 20:
                    skip(work / f"share-{number}")
                    running[number] = start(arguments, number, work)
    return deaths


def skip(folder: Path) -> None:
    """Let a share that died go on behind the mutant it died of."""
    state = folder / "state.json"
    tally = Tally(**json.loads(state.read_text())) if state.is_file() else Tally()
    last = json.loads((folder / "last.json").read_text())
    tally.done = max(tally.done, last["mutant"] // max(1, last.get("jobs", 1))) + 1
    state.write_text(json.dumps(dataclasses.asdict(tally)))


def gathered(work: Path) -> Tally:
    total = Tally()
    for state in sorted(work.glob("share-*/state.json")):
        total = total.merged(Tally(**json.loads(state.read_text())))
    return total


def keep(work: Path) -> None:
    """Take what did something new into the committed corpus."""
    corpus = Corpus(CORPUS)
    for folder in sorted(work.glob("share-*/corpus")):
        found = Corpus(folder)
        for signature, name in found.names.items():
            suffix, _, rest = signature.partition("|")
            mutant = found.read(name)
            if not mutant.links:  # a link to a device in a source tree would hang who walks it
                corpus.offer(rest, suffix, mutant, most_bytes=LARGEST_COMMITTED)
    print(f"{len(corpus.names)} behaviours in the committed corpus")


def table(total: Tally) -> list[dict[str, Any]]:
    """A row for each format."""
    return [
        {"format": name, "mutants": sum(kinds.values()), "outcomes": kinds, "errors": total.errors.get(name, {})}
        for name, kinds in sorted(total.kinds.items())
    ]


def tell(total: Tally, deaths: int) -> None:
    for row in table(total):
        outcomes = ", ".join(f"{kind} {count}" for kind, count in sorted(row["outcomes"].items()))
        print(f"{row['format']:10} {row['mutants']:7}  {outcomes}")
    overruns = total.time_overruns + total.memory_overruns
    print(
        f"{total.done} mutants, {total.new_behaviours} new behaviours; callers died {deaths + total.parent_deaths}, limits"
        f" exceeded {overruns}, writes elsewhere {total.outside_writes}"
    )
    for place, count in sorted(total.foreign.items()):
        print(f"finding, {count} times: {place}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", action="append", default=[], metavar="FORMAT", help="one format; may be repeated")
    parser.add_argument("--work", default="", help="folder for state and findings; a run that was interrupted goes on from it")
    parser.add_argument("--keep", action="store_true", help="take what did something new into the committed corpus")
    parser.add_argument("--share", type=int, default=-1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.share >= 0:
        share(arguments)
        return 0
    work = Path(arguments.work or tempfile.mkdtemp(prefix="edgekit-fuzz-")).resolve()
    clock = time.monotonic()
    deaths = supervise(arguments, work)
    seconds = time.monotonic() - clock
    total = gathered(work)
    tell(total, deaths)
    if arguments.keep:
        keep(work)
    counts = {
        "mutants": total.done, "callers_died": deaths + total.parent_deaths, "time_limits_exceeded": total.time_overruns,
        "memory_limits_exceeded": total.memory_overruns, "writes_elsewhere": total.outside_writes,
        "new_behaviours": total.new_behaviours, "foreign_errors": total.foreign,
    }  # fmt: skip
    limits = {"timeout_s": TIMEOUT_S, "cpu_s": CPU_S, "memory_bytes": MEMORY_BYTES}
    rate = round(total.done / seconds, 1)
    longest = {"longest_s": round(total.longest_s, 2), "peak_bytes": total.peak_bytes, "mutants_per_s": rate}
    settings = {"seed": arguments.seed, "jobs": arguments.jobs, "limits": limits, **counts, **longest}
    print(f"{rate:.0f} mutants a second")
    if not arguments.only:
        path = write_results("fuzz", table(total), settings=settings, packages=PACKAGES, quick=total.done < QUICK)
        print(f"written to {path}")
    harm = deaths + total.parent_deaths + total.time_overruns + total.memory_overruns + total.outside_writes
    if not arguments.work and not harm and not total.foreign:
        shutil.rmtree(work, ignore_errors=True)
    else:
        print(f"state and findings: {work}")
    return 1 if harm or total.foreign else 0


if __name__ == "__main__":
    sys.exit(main())
