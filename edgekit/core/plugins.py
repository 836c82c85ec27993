"""The contracts between the frame and its parts: converters, runtimes, transports, steps.

Each is an entry point in a group of its own (``edgekit.converters`` ...); built-ins use the same groups. An entry point
names an object whose module imports no framework: attributes say what it needs, methods import on use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.measurement import Measurement
from edgekit.core.progress import Progress, silent
from edgekit.core.runtime_options import RuntimeOption
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed, StepRecord
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.source import ImportedModel, SourceOptions
    from edgekit.core.stages import TimedProgram
    from edgekit.core.step import Step
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = [
    "Appraiser",
    "Bench",
    "Converter",
    "Framework",
    "Progress",
    "Runtime",
    "Session",
    "Source",
    "StepRunner",
    "Transport",
    "silent",
]


class Framework(Protocol):
    """What a part needs to be there, as data that can be read without importing it."""

    name: str
    """Name in its entry-point group: the target's (``"onnx"``) or the runtime's (``"onnxruntime"``)."""
    extra: str
    """Packaging extra that brings its dependencies."""
    modules: tuple[str, ...]
    """Top-level modules it imports; one that cannot be found means the extra is not installed."""
    hides: tuple[str, ...]
    """Modules its worker must not import, for speed and against conflicts."""


@runtime_checkable
class Converter(Framework, Protocol):
    """Program -> artifact for one target. Called in a worker process.

    One for a format of general serving says so with an attribute ``kind = "serving"``: it is used when asked for by name, and
    makes no promise of integer kernels.
    """

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write the target's file into the empty folder ``output`` and say what became of every contract entry.

        Raises:
            UnsupportedOpError: Names the operator, its layer and what to do.
            ConversionError: The framework refused the program.
        """
        ...


@runtime_checkable
class Source(Framework, Protocol):
    """Model file -> program. ``read`` is called in a confined worker process; only ``recognises`` in the caller's own."""

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this kind, by its name and its first bytes; it is not parsed."""
        ...

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the file.

        Raises:
            IntegrityError: The file is damaged, hostile, or not what its name says.
            UnsupportedOpError: It holds an operator that has no counterpart; names it and its node.
            UsageError: The file leaves open what the options must say.
        """
        ...


@runtime_checkable
class Session(Protocol):
    """A loaded model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference: arrays by input name, exactly of the specs' shapes and dtypes -> arrays by output name.

        Raises:
            DataError: A name, shape or dtype is wrong.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@runtime_checkable
class Runtime(Framework, Protocol):
    """Artifact + inputs -> outputs."""

    target: str
    """The converter whose artifacts it runs."""
    options: tuple[RuntimeOption, ...]
    """What ``load`` takes in ``options``, as data that can be listed."""

    def version(self) -> str:
        """Version of the installed runtime."""
        ...

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> Session:
        """Load a model file.

        Raises:
            IntegrityError: The file is not one the runtime can read.
            UnsupportedOpError: It holds an operator the runtime cannot run.
        """
        ...

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Run every quantized layer of the artifact's own file alone, fed the compressed program's integers.

        Args:
            artifact: An int8 artifact whose contract report names the tensor of each entry.
            contract: The contract it was made from.
            recorded: Activation entry -> the program's integers ``[S, *entry.shape]``, on the contract's grid.
            threads: Threads the runtime may use.

        Returns:
            Activation entry -> the layer's own integers, same shape and grid, for every entry (but inputs) that
            the file computes.
        """
        ...


@runtime_checkable
class Appraiser(Protocol):
    """A runtime that says more of a model than how long it took: its arena, the cycles a model of the hardware counts, energy."""

    def appraise(self, path: Path, *, options: Mapping[str, Any]) -> tuple[Measurement, ...]:
        """Numbers about a model file, each with its evidence; one called ``latency`` stands where no inference is timed.

        Raises:
            UnsupportedOpError: The file holds something that cannot be appraised.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """How jobs reach one device. Those that are not this machine do it by a link and an agent (:mod:`.device_link`)."""

    def facts(self) -> dict[str, str]:
        """Processor, architecture, cores, memory, operating system, clock governor: what the device says of itself."""
        ...

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job folder's ``job.json`` on the device and bring ``result.json`` and arrays back into it.

        Raises:
            DeviceError: The device was lost.
            WorkerError: The agent crashed, or ran out of time or memory.
        """
        ...

    def close(self) -> None:
        """Leave nothing running on the device."""
        ...


@runtime_checkable
class Bench(Protocol):
    """Where a step has its programs converted and measured while it still works on them; the pipeline brings it."""

    def size_bytes(self, state: Compressed, *, target: str) -> int:
        """Size of the converted file."""
        ...

    def time(self, states: Mapping[str, Compressed], *, target: str, device: str) -> dict[str, TimedProgram]:
        """Convert programs and time the files in turn, so that what disturbs one disturbs all.

        Args:
            states: Programs by label; the first is what the others are compared with.
            target: What to convert to.
            device: Profile name or file.

        Raises:
            ConversionError: The target cannot take a program.
            DeviceError: The device was lost.
        """
        ...


@runtime_checkable
class StepRunner(Protocol):
    """Carries out one kind of step."""

    config: type[Step]

    def __call__(
        self,
        state: Compressed,
        *,
        step: Step,
        task: Task,
        progress: Progress,
        work: Path | None = None,
        bench: Bench | None = None,
    ) -> tuple[Compressed, StepRecord]:
        """Return the next state and what was done; never change ``state``.

        Args:
            state: What the steps before made.
            step: Configuration.
            task: Brings the data.
            progress: Called as the work advances.
            work: Folder for what a run that is killed can go on from; the step makes it if it needs it. None: nothing is kept.
            bench: Converts and times programs that are still in the making; None: nothing can be measured.
        """
        ...
