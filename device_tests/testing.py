"""Test doubles: a runtime without a framework and a device without hardware.

They are for tests of the device lab, of transports and of plug-ins. Nothing they return is a measurement of anything:
a :class:`FakeRuntime` multiplies matrices in numpy, a :class:`FakeDevice` calls the agent in the caller's own process, a
:class:`ShellLink` reaches a folder of this machine.

>>> import tempfile, numpy as np
>>> model = FakeModel(weight=((1.0,), (2.0,)), bias=(0.5,))
>>> with tempfile.TemporaryDirectory() as folder:
...     artifact = model.export(Path(folder), precision="float32")
...     FakeRuntime().load(artifact.path).run({"x": np.array([[1.0, 1.0]], np.float32)})
{'output': array([[3.5]], dtype=float32)}
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.core.artifact import Artifact
from edgekit.core.contract import ContractReport, QuantizationContract
from edgekit.core.device_link import Finished
from edgekit.core.errors import ConversionError, DeviceError, IntegrityError
from edgekit.core.files import sha256, size_bytes
from edgekit.core.model import Record
from edgekit.core.profile import DeviceProfile
from edgekit.core.runtime_options import RuntimeOption
from edgekit.core.tensors import TensorSpec, check_inputs
from edgekit.device_tests.agent import run

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["FAKE_RUNTIME", "FakeDevice", "FakeModel", "FakeRuntime", "FakeSession", "ShellLink"]


class FakeModel(Record):
    """A model file of the fake target: ``output = x @ weight + bias``, with chosen faults.

    Args:
        weight: ``[inputs, outputs]``.
        bias: ``[outputs]``.
        batch: Static batch size.
        sleep_s: Time every inference waits.
        fails: ``"load"`` and ``"run"`` raise, ``"crash"`` ends the process, ``"nan"`` answers NaN, ``"replay"`` raises there.
        step_error: Steps by which every replayed layer is off.
    """

    weight: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    batch: int = 1
    sleep_s: float = 0.0
    fails: Literal["", "load", "run", "crash", "nan", "replay"] = ""
    step_error: int = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """One input ``x``, ``[batch, inputs]``."""
        return (TensorSpec(name="x", shape=(self.batch, len(self.weight)), dtype="float32"),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """One output ``output``, ``[batch, outputs]``."""
        return (TensorSpec(name="output", shape=(self.batch, len(self.bias)), dtype="float32"),)

    def export(self, folder: Path, *, precision: str = "int8", report: ContractReport | None = None) -> Artifact:
        """Write the model file into ``folder`` and return its artifact."""
        path = folder / f"model-{precision}.fake.json"
        self.write_json(path)
        return Artifact(
            target="fake",
            path=path,
            sha256=sha256(path),
            size_bytes=size_bytes(path),
            precision=precision,
            inputs=self.inputs,
            outputs=self.outputs,
            contract_report=report or ContractReport(),
        )

    def answer(self, x: Array) -> Array:
        """``x @ weight + bias`` for ``[N, inputs]``, float32."""
        import numpy as np

        values: Array = (np.asarray(x, np.float32) @ np.array(self.weight, np.float32) + np.array(self.bias, np.float32)).astype(
            np.float32
        )
        return values


class FakeSession:
    """A loaded :class:`FakeModel`."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self.inputs = model.inputs
        self.outputs = model.outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference, or the model's fault."""
        check_inputs(inputs, self.inputs)
        if self.model.fails == "run":
            raise ConversionError("The fake model fails when it is run, as it was told to.")
        if self.model.fails == "crash":
            os.abort()
        if self.model.sleep_s:
            time.sleep(self.model.sleep_s)
        answer = self.model.answer(inputs["x"])
        return {"output": answer * float("nan") if self.model.fails == "nan" else answer}

    def close(self) -> None:
        """Nothing to free."""


class FakeRuntime:
    """A runtime for :class:`FakeModel` files; name it ``"edgekit.device_tests.testing:FAKE_RUNTIME"`` in a profile."""

    name = "fake"
    extra = "dev"
    target = "fake"
    modules: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    options: tuple[RuntimeOption, ...] = ()

    def version(self) -> str:
        """``"test double"``."""
        return "test double"

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> FakeSession:  # noqa: ARG002
        """Read the model file."""
        model = FakeModel.read_json(path)
        if model.fails == "load":
            raise IntegrityError(f"{path.name} cannot be loaded, as it was told to.")
        return FakeSession(model)

    def replay_layers(
        self,
        artifact: Artifact,
        contract: QuantizationContract,
        recorded: Mapping[str, Array],
        *,
        threads: int = 1,  # noqa: ARG002
    ) -> dict[str, Array]:
        """The recorded integers, off by the model's ``step_error``."""
        model = FakeModel.read_json(artifact.path)
        if model.fails == "replay":
            raise ConversionError("The fake model cannot be cut into layers, as it was told to.")
        layers = [entry for entry in contract.activations if entry.role != "input" and entry.name in recorded]
        return {entry.name: recorded[entry.name] - model.step_error for entry in layers}


FAKE_RUNTIME = FakeRuntime()


class FakeDevice:
    """A transport that runs the agent in this process and can be lost.

    Args:
        profile: The device's profile.
        lost_after: Number of jobs after which the device is gone; None for never.
        system: What it says its operating system is.
    """

    def __init__(self, profile: DeviceProfile | None = None, *, lost_after: int | None = None, system: str = "Fake") -> None:
        self.profile = profile
        self.lost_after = lost_after
        self.system = system
        self.jobs: list[str] = []
        self.is_closed = False

    def facts(self) -> dict[str, str]:
        """What a device says of itself; here: that it is none."""
        return {"processor": "none (test double)", "system": self.system}

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:  # noqa: ARG002
        """Run the job here and now.

        Raises:
            DeviceError: The device was told to be lost by now.
        """
        if self.lost_after is not None and len(self.jobs) >= self.lost_after:
            raise DeviceError(f"The fake device was lost after {len(self.jobs)} jobs, as it was told to.")
        self.jobs.append(job.name)
        run(str(job))

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True


class ShellLink:
    """A link whose device is a folder of this machine, through its shell, and which can be cut at chosen calls.

    Args:
        folder: The device's folder for edgekit; made on the first connection.
        shell: The device's shell, such as ``["busybox", "sh"]``.
        path: Its ``PATH``, where that shall not be this process's.
        cuts: Number of a call, counted from 1 -> ``"before"`` it happened, in the ``"middle"`` of a file, ``"after"`` it happened
            and before anybody heard of it. :meth:`connect` is a call too.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     link = ShellLink(Path(folder))
    ...     link.connect()
    ...     link.run("cat; exit 3", timeout_s=5, given=b"hello")
    Finished(code=3, output='hello', errors='')
    """

    def __init__(
        self,
        folder: Path,
        *,
        shell: Sequence[str] = ("sh",),
        path: str | None = None,
        cuts: Mapping[int, Literal["before", "middle", "after"]] | None = None,
    ) -> None:
        self.folder = folder
        self.shell = tuple(shell)
        self.path = path
        self.cuts = dict(cuts or {})
        self.calls = 0
        self.is_connected = False

    def connect(self) -> None:
        """Make the folder."""
        fault = self._count()
        if fault == "before":
            raise self._lose()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.is_connected = True
        if fault:
            raise self._lose()

    def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        """Run a command line in the folder."""
        fault = self._begin()
        environment = os.environ if self.path is None else {**os.environ, "PATH": self.path}
        try:
            done = subprocess.run(
                [*self.shell, "-c", command],
                cwd=self.folder,
                env=environment,
                input=given,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as reason:
            raise self._lose() from reason
        if fault:
            raise self._lose()
        return Finished(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def push(self, source: Path, target: str, *, offset: int = 0) -> None:
        """Copy a file's bytes from ``offset`` on into the folder."""
        fault = self._begin()
        self._copy(source, self.folder / target, offset, fault)

    def pull(self, source: str, target: Path, *, offset: int = 0) -> None:
        """Copy a file's bytes from ``offset`` on out of the folder."""
        fault = self._begin()
        self._copy(self.folder / source, target, offset, fault)

    def close(self) -> None:
        """Not connected any more."""
        self.is_connected = False

    def _copy(self, source: Path, target: Path, offset: int, fault: str) -> None:
        try:
            data = source.read_bytes()[offset:]
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("r+b" if target.exists() else "w+b") as stream:
                stream.truncate(offset)
                stream.seek(offset)
                stream.write(data[: len(data) // 2] if fault == "middle" else data)
        except OSError as reason:
            raise DeviceError(f"The shell's device cannot copy {source.name}: {reason.strerror}.") from reason
        if fault:
            raise self._lose()

    def _begin(self) -> str:
        fault = self._count()
        if fault == "before" or not self.is_connected:
            raise self._lose()
        return fault

    def _count(self) -> str:
        self.calls += 1
        return self.cuts.get(self.calls, "")

    def _lose(self) -> DeviceError:
        self.is_connected = False
        return DeviceError(f"The shell's link was lost at call {self.calls}.")
