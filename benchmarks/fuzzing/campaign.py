"""One of the campaign's processes: its share of the mutants, its tallies, its part of the corpus."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.files import sha256, write_text
from fuzzing.corpus import CORPUS, SEEDS, Corpus
from fuzzing.examination import MEMORY_BYTES, TIMEOUT_S, Examination
from fuzzing.formats import FORMATS, Format, Mutant, mutate, read_case, write_case
from fuzzing.outcome import Outcome

__all__ = ["Share", "Tally"]

_GRACE_S = 2.0
"""Beyond a limit on time: how long ending a child, and a busy machine, may take."""
_GRACE_BYTES = 2**28
"""Beyond a limit on memory: pages a child shares with the server it was forked from."""
_CHECK_EVERY = 200
_MOST_FINDINGS = 40
_SMALL_BYTES = 40_000
_HARMFUL = {"foreign error", "nonsense"}


@dataclasses.dataclass
class Tally:
    """What was counted; round-trips through JSON."""

    done: int = 0
    kinds: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    errors: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    foreign: dict[str, int] = dataclasses.field(default_factory=dict)
    parent_deaths: int = 0
    time_overruns: int = 0
    memory_overruns: int = 0
    outside_writes: int = 0
    new_behaviours: int = 0
    longest_s: float = 0.0
    peak_bytes: int = 0
    seconds: float = 0.0

    def add(self, one: Format, found: Outcome) -> None:
        """Count one mutant."""
        self.done += 1
        kinds, errors = self.kinds.setdefault(one.name, {}), self.errors.setdefault(one.name, {})
        kinds[found.kind] = kinds.get(found.kind, 0) + 1
        if found.error:
            errors[found.error] = errors.get(found.error, 0) + 1
        self.time_overruns += found.seconds > TIMEOUT_S + _GRACE_S
        self.memory_overruns += found.peak_bytes > MEMORY_BYTES + _GRACE_BYTES
        self.longest_s, self.peak_bytes = max(self.longest_s, found.seconds), max(self.peak_bytes, found.peak_bytes)

    def merged(self, other: Tally) -> Tally:
        """Both together; times and peaks are the larger one's."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if field.name in {"kinds", "errors"}:
                found[field.name] = {key: _summed(a.get(key, {}), b.get(key, {})) for key in {**a, **b}}
            elif isinstance(a, dict):
                found[field.name] = _summed(a, b)
            else:
                found[field.name] = max(a, b) if field.name in {"longest_s", "peak_bytes", "seconds"} else a + b
        return Tally(**found)


def _summed(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return dict(collections.Counter(a) + collections.Counter(b))


class Share:
    """Every ``jobs``-th mutant from ``number`` on.

    The same seed, count of jobs and corpus give the same mutants: what one process finds is no seed of another's.

    Args:
        folder: The process's own: ``state.json``, ``corpus/``, ``findings/``; it goes on from what lies there.
        seed: Of all draws.
        number: Which share.
        jobs: How many shares there are.
        only: Formats; empty: all.
    """

    def __init__(self, folder: Path, *, seed: int, number: int, jobs: int, only: tuple[str, ...] = ()) -> None:
        self._folder, self._seed, self._number, self._jobs = folder, seed, number, jobs
        self._state = folder / "state.json"
        self.tally = Tally(**json.loads(self._state.read_text())) if self._state.is_file() else Tally()
        self._corpus = Corpus(folder / "corpus")
        self._committed = Corpus(CORPUS)
        chosen = [one for one in FORMATS if not only or one.name in only]
        self._turns = [one for one in chosen for _ in range(one.weight)]
        self._seeds: dict[str, list[Mutant]] = {}
        for one in chosen:
            made = [read_case(path) for path in sorted(SEEDS.glob(f"*.{one.name}"))]
            self._seeds[one.name] = made + list(self._committed.of(one.name)) + list(self._corpus.of(one.name))
        self._canaries = folder / "canary"
        self._examination = Examination(folder / "work")

    def run(self, count: int, progress: Callable[[Tally], None]) -> Tally:
        """Examine mutants until the share of ``count`` is done."""
        self._plant()
        start, before = time.monotonic(), self.tally.seconds
        expected = self._prints()
        names = {one.name: one for one in self._turns}
        with contextlib.ExitStack() as stack:
            stack.callback(self._examination.close)
            for one in names.values():
                self._examination.learn(one, self._seeds[one.name][0])
            while (at := self.tally.done * self._jobs + self._number) < count:
                self._one(at)
                self.tally.seconds = before + time.monotonic() - start
                if self.tally.done % _CHECK_EVERY == 0:
                    expected = self._check(expected)
                    progress(self.tally)
            self._check(expected)
        return self.tally

    def _one(self, at: int) -> None:
        draw = np.random.default_rng([self._seed, at])
        one = self._turns[int(draw.integers(len(self._turns)))]
        pool = self._seeds[one.name]
        mutant = mutate(one, pool[int(draw.integers(len(pool)))], draw, pool)
        (self._folder / "last.json").write_text(json.dumps({"mutant": at, "jobs": self._jobs, "format": one.name}))
        try:
            found = self._examination.examine(one, mutant)
        except Exception:  # the caller of children must never see anything but an edgekit error: it would have died of it
            found = Outcome("parent death", "", traceback.format_exc())
            self.tally.parent_deaths += 1
        self.tally.add(one, found)
        is_read_by_callers = not one.plug_in
        if found.kind in _HARMFUL | {"parent death"} or (is_read_by_callers and found.kind in {"child death", "hang cut"}):
            self._keep_finding(at, one, mutant, found)
        elif found.signature and self._is_new(one, mutant, found):
            self.tally.new_behaviours += 1
            pool.append(mutant)

    def _is_new(self, one: Format, mutant: Mutant, found: Outcome) -> bool:
        if f"{one.name}|{found.signature}" in self._committed.names:
            return False
        return self._corpus.offer(found.signature, one.name, mutant, most_bytes=_SMALL_BYTES)

    def _keep_finding(self, at: int, one: Format, mutant: Mutant, found: Outcome) -> None:
        place = f"{one.name} {found.kind} {found.error} {found.words.split(': ')[0][:60]}"
        self.tally.foreign[place] = self.tally.foreign.get(place, 0) + 1
        folder = self._folder / "findings"
        if self.tally.foreign[place] > 2 or len(self.tally.foreign) > _MOST_FINDINGS:
            return
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            write_case(mutant, folder / f"{at}.{one.name}")
        write_text(folder / f"{at}.json", json.dumps({"mutant": at, **dataclasses.asdict(found)}, indent=1))

    def _plant(self) -> None:
        """What must be untouched in the end: files around the work folder, a home, and the folder that children start in."""
        for name in ("kept.txt", "home/.profile", "here/model.onnx"):
            place = self._canaries / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"canary {name}")
        os.chdir(self._canaries / "here")
        os.environ["HOME"] = str(self._canaries / "home")

    def _prints(self) -> tuple[str, ...]:
        own = {"state.json", "last.json", "corpus", "findings", "work", "canary"}
        names = sorted(entry.name for entry in self._folder.iterdir())
        around = [name for name in names if name not in own and not name.startswith("server-")]
        return (sha256(self._canaries), *around, str(Path("/tmp/edgekit-fuzz-stolen").exists()))

    def _check(self, expected: tuple[str, ...]) -> tuple[str, ...]:
        found = self._prints()
        self.tally.outside_writes += found != expected
        write_text(self._state, json.dumps(dataclasses.asdict(self.tally)))
        return found
