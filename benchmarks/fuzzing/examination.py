"""One mutant through the same door that a user's file takes, but for children that are forked instead of started anew."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.confinement import Confinement
from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.file_kinds import kind_of
from edgekit.core.fork_server import ForkServer
from edgekit.core.model_server import Order
from edgekit.core.served_model import Limits, ServedModel
from edgekit.core.snapshot import take_snapshot
from edgekit.core.tensors import TensorSpec, check_inputs
from edgekit.core.threads import thread_limits
from fuzzing.formats import Format, Mutant, write_case
from fuzzing.outcome import Outcome, of_error, of_report
from fuzzing.targets import IMPORTS

__all__ = ["CPU_S", "MEMORY_BYTES", "TIMEOUT_S", "Examination"]

TIMEOUT_S = 10.0
CPU_S = 8
MEMORY_BYTES = 2 * 2**30
_FILE_BYTES = 2**26
_MOST_INPUT_BYTES = 2**26
_FIRST = 12
"""Times the limits of a mutant, for the one child that imports a framework."""
_CODE = Path(__file__).resolve().parents[1]


class Examination:
    """Fork servers, one a format, and a work folder.

    Args:
        folder: The work folder; mutants, copies and scratch folders lie in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[str, ForkServer] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End all servers."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def examine(self, one: Format, mutant: Mutant) -> Outcome:
        """Write a mutant, have it opened, and clean up."""
        place, clock = self._folder / "case", _Clock()
        self._clear()
        try:
            path = place / f"case.{one.name}"
            place.mkdir()
            write_case(mutant, path)
            found = self._opened(one, path, clock)
        except EdgekitError as reason:
            found = of_error(reason)
        return Outcome(found.kind, found.error, found.words, found.stages, clock.longest_s, clock.peak_bytes)

    def _opened(self, one: Format, path: Path, clock: _Clock) -> Outcome:
        if one.plug_in:
            kind_of(path)
            (self._folder / "copy").mkdir()
            path = take_snapshot(path, self._folder / "copy", companions=(".data",)).path
        with self._model(one, path, clock) as model:
            with clock:
                found, _ = model.call("fuzzing.targets:report")
            if not isinstance(found, dict) or not all(isinstance(row, list) and len(row) == 2 for row in found.values()):
                raise IntegrityError("The report is none.")
            if not model.outputs:
                return of_report(found, has_answered=False)
            inputs = {spec.name: _drawn(spec) for spec in model.inputs}
            check_inputs(inputs, model.inputs)
            with clock:
                model.run(inputs)
            return of_report(found, has_answered=True)

    @contextmanager
    def _model(self, one: Format, path: Path, clock: _Clock, *, patience: int = 1) -> Iterator[ServedModel]:
        scratch, log = self._folder / "scratch", self._folder / "log.txt"
        scratch.mkdir()
        own = () if one.plug_in else (str(path.parent),)
        rights = Confinement(
            reads=(str(path.parent),), writes=own, memory_bytes=MEMORY_BYTES, cpu_s=CPU_S * patience, file_bytes=_FILE_BYTES
        )
        order = Order(
            runtime=f"fuzzing.targets:{one.examiner}",
            path=str(path),
            confined=rights.model_dump(mode="json"),
            scratch=str(scratch),
        )
        with log.open("wb") as output:
            child = self._server(one).fork(output)
        limits = Limits(timeout_s=TIMEOUT_S * patience, memory_bytes=MEMORY_BYTES, answer_bytes=2**28)
        try:
            with clock:
                model = ServedModel(child, order, what=f"opening {path.name}", limits=limits, log=log)
            yield model
        finally:
            child.end()
            clock.peak_bytes = max(clock.peak_bytes, child.peak_bytes)

    def _server(self, one: Format) -> ForkServer:
        if one.name not in self._servers:
            home = self._folder.parent / "server-home"  # where ONNX Runtime puts a database of its own as it is imported
            home.mkdir(exist_ok=True)
            variables = {**os.environ, **thread_limits(1), "PYTHONPATH": str(_CODE), "EDGEKIT_CONFINED": "1", "HOME": str(home)}
            imports = [*IMPORTS, *WARM.get(one.name, ())]
            log = self._folder.parent / f"server-{one.name}.txt"
            self._servers[one.name] = ForkServer(imports, hides=one.hides, environment=variables, log=log)
        return self._servers[one.name]

    def learn(self, one: Format, seed: Mutant) -> None:
        """Find out what the reading of a seed imports, and start the format's server with it."""
        WARM.setdefault(one.name, ())
        self._clear()
        (self._folder / "case").mkdir()
        path = self._folder / "case" / f"case.{one.name}"
        write_case(seed, path)
        with self._model(one, path, _Clock(), patience=_FIRST) as model:
            model.call("fuzzing.targets:report")
            if model.outputs:
                model.run({spec.name: _drawn(spec) for spec in model.inputs})
            names, _ = model.call("fuzzing.targets:imported")
        WARM[one.name] = tuple(str(name) for name in names)
        self._servers.pop(one.name).close()

    def _clear(self) -> None:
        for name in ("case", "copy", "scratch"):
            shutil.rmtree(self._folder / name, ignore_errors=True)


WARM: dict[str, tuple[str, ...]] = {}
"""Format -> modules its fork server imports."""


class _Clock:
    """The longest of several exchanges."""

    def __init__(self) -> None:
        self.longest_s, self.peak_bytes, self._start = 0.0, 0, 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *reason: object) -> None:
        self.longest_s = max(self.longest_s, time.monotonic() - self._start)


def _drawn(spec: TensorSpec) -> Any:
    """Numbers for an input a mutant announces.

    Raises:
        IntegrityError: It wants more than a caller would ever give.
    """
    size = int(np.prod([float(n) for n in spec.shape])) if spec.shape else 1
    if size * 8 > _MOST_INPUT_BYTES:
        raise IntegrityError(f"Input '{spec.name[:80]}' wants {size} values.")
    draw: Mapping[str, Any] = {"f": lambda: np.random.default_rng(0).standard_normal(spec.shape)}
    kind = np.dtype(spec.dtype).kind if spec.dtype != "int4" else "i"
    values = draw[kind]() if kind in draw else np.ones(spec.shape)
    return np.asarray(values).astype("int8" if spec.dtype == "int4" else spec.dtype)
