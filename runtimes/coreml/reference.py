"""Runs ``.mlpackage`` files anywhere: MIL's reference semantics on torch's CPU kernels.

**Reference semantics, not the Neural Engine.** Every operation is computed in float32 as the MIL operation set documents
it, and rounded to float16 where the program declares float16. Apple's runtimes fuse operations, accumulate in other
orders and precisions, and choose between Neural Engine, GPU and CPU: their answers differ by rounding, and their
speed is not measured here. Numbers taken with this runtime carry the evidence ``reference``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import EdgekitError, IntegrityError, UsageError
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import check_inputs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.operator_profile import OperatorProfile
    from edgekit.core.provenance import Kernels, TracedFile
    from edgekit.core.stored import StoredFile
    from edgekit.core.tensors import Array, TensorSpec
    from edgekit.runtimes.coreml.executable import Executable
    from edgekit.runtimes.coreml.program import Program
    from edgekit.runtimes.coreml.state import ReferenceState

__all__ = ["OPTIONS", "RUNTIME", "ReferenceRuntime", "ReferenceSession"]

OPTIONS = (
    RuntimeOption(
        name="precision", kind="choice", default="declared", values=("declared", "float32", "float16"),
        meaning="Results are rounded to float16 where the program declares float16, nowhere, or everywhere.",
    ),
    RuntimeOption(
        name="function", kind="text", default="",
        meaning="Which function of a package that holds several; empty for the package's default.",
    ),
)  # fmt: skip
"""Options of ``load``."""


class ReferenceSession:
    """A loaded program.

    Args:
        executable: The compiled program.
        program: What it was compiled from.
    """

    def __init__(self, executable: Executable, program: Program) -> None:
        self.inputs = program.inputs
        self.outputs = program.outputs
        self._pictures = program.pictures
        self._executable: Executable | None = executable
        declared = {name for name, variable in program.variables.items() if None in variable.shape}
        self._is_open = any(spec.flexible for spec in program.inputs) or any(spec.name in declared for spec in program.outputs)

    @property
    def executable(self) -> Executable:
        """The compiled program.

        Raises:
            UsageError: The session was closed.
        """
        if self._executable is None:
            raise UsageError("This Core ML session was closed; load the model again.")
        return self._executable

    def make_state(self) -> ReferenceState:
        """States for a sequence of runs, zeros at the beginning; of a model without any, an empty one."""
        from edgekit.runtimes.coreml.state import ReferenceState

        return ReferenceState(self.executable.states, self.executable.make_states())

    def run(self, inputs: Mapping[str, Array], *, state: ReferenceState | None = None) -> dict[str, Array]:
        """One inference.

        Args:
            inputs: Input name -> array.
            state: What :meth:`make_state` gave; the run reads it and writes to it. Without it, a model that has states starts
                from zeros, and what it leaves is dropped.

        Raises:
            DataError: A name, shape or dtype is wrong.
            UsageError: The session was closed, or the state is of another model.
            IntegrityError: The program cannot run on this input, or computes another shape than it declares.
        """
        import torch

        from edgekit.runtimes.coreml.features import as_picture

        executable = self.executable
        check_inputs(inputs, self.inputs)
        if state is not None and set(state.names) != {variable.name for variable in executable.states}:
            raise UsageError(f"The state given is of another model: it holds {', '.join(state.names) or 'nothing'}.")
        tensors = {name: torch.from_numpy(_owned(array)) for name, array in inputs.items()}
        widened = {name: _widened(tensor) for name, tensor in tensors.items()}
        results = executable.run(widened, None if state is None else state.cells)
        shown = {spec.name: as_picture(spec.name, results[spec.name], self._pictures).numpy() for spec in self.outputs}
        found = {spec.name: shown[spec.name].astype(spec.dtype, copy=False) for spec in self.outputs}
        return found if self._is_open else {spec.name: _declared(found[spec.name], spec) for spec in self.outputs}

    def close(self) -> None:
        """Free the program."""
        self._executable = None


class ReferenceRuntime:
    """Core ML's reference semantics on torch, on any machine."""

    name = "coreml-reference"
    extra = "coreml"
    modules = ("coremltools",)
    hides = ("tensorflow", "onnx", "onnxruntime", "keras", "ai_edge_litert", "litert_torch")
    target = "coreml"
    options = OPTIONS

    def version(self) -> str:
        """Versions of edgekit and torch, and what this is."""
        own, torch = metadata.version("edgekit"), metadata.version("torch")
        return f"edgekit {own} on torch {torch} (reference semantics, not the Neural Engine)"

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> ReferenceSession:
        """Load a package.

        Args:
            path: The ``.mlpackage`` folder.
            threads: Threads torch may use.
            options: Values of :data:`OPTIONS`.

        Raises:
            IntegrityError: The package is damaged or incomplete.
            UnsupportedOpError: It holds an operation without a kernel, or no ML program.
            UsageError: An option or a function is unknown.
        """
        from edgekit.runtimes.coreml.executor import compile_program
        from edgekit.runtimes.coreml.package import read_package

        settings = read_settings(options, OPTIONS, runtime="The Core ML reference executor")
        program = read_package(path, function=settings["function"])
        try:
            executable = compile_program(program, threads=threads, precision=settings["precision"])
        except EdgekitError as reason:
            raise type(reason)(f"{path}: {reason}") from reason
        return ReferenceSession(executable, program)

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Run every quantized layer of the package alone, fed the compressed program's integers.

        See :meth:`edgekit.core.plugins.Runtime.replay_layers`. A layer that also reads a model input which is not
        quantized (token indices, say) cannot be replayed from integers alone and is left out.
        """
        from edgekit.runtimes.coreml.replay import replay_layers

        session = self.load(artifact.path, threads=threads)
        return replay_layers(session.executable, session.inputs, artifact.contract_report, contract, recorded)

    def trace(self, path: Path, inputs: Mapping[str, Array], *, kernels: Kernels = "reference") -> TracedFile:
        """Every tensor of a package; see :mod:`edgekit.runtimes.coreml.trace`. There are no other kernels than the reference."""
        from edgekit.runtimes.coreml.package import read_package
        from edgekit.runtimes.coreml.trace import trace_package

        del kernels
        return trace_package(self.load(path).executable, read_package(path), inputs)

    def cut(self, path: Path, destination: Path, *, reads: Mapping[str, Array], writes: Sequence[str]) -> Path:
        """A piece of a package, ``part.mlpackage``; see :meth:`edgekit.core.provenance.Tracer.cut`."""
        from edgekit.runtimes.coreml.piece import cut_piece

        return cut_piece(path, destination / "part.mlpackage", reads=reads, writes=writes)

    def read_file(self, path: Path, inputs: Mapping[str, Array]) -> StoredFile:  # noqa: ARG002  reading it is enough
        """What a package holds; see :mod:`edgekit.runtimes.coreml.stored`."""
        from edgekit.runtimes.coreml.stored import read_file

        return read_file(path)

    def profile(
        self,
        path: Path,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        options: Mapping[str, Any] | None = None,
        run_count: int = 20,
    ) -> OperatorProfile:
        """Every operation's time here, which is no device's; see :mod:`edgekit.runtimes.coreml.profile`."""
        from edgekit.runtimes.coreml.profile import profile_program

        session = self.load(path, threads=threads, options=options)
        check_inputs(inputs, session.inputs)
        return profile_program(
            session.executable, path.name, inputs, runtime=self.version(), threads=threads, run_count=run_count
        )


def _declared(found: Array, spec: TensorSpec) -> Array:
    if found.size != math.prod(spec.shape):
        raise IntegrityError(
            f"Output '{spec.name}' is declared as {list(spec.shape)}, but the program computes {list(found.shape)}."
        )
    return found.reshape(spec.shape)


def _owned(array: Array) -> Array:
    """A contiguous array torch may wrap: it warns about arrays it must not write to."""
    import numpy as np

    return np.require(array, requirements=["C", "W"])


def _widened(tensor: Any) -> Any:
    return tensor.float() if tensor.is_floating_point() else tensor


RUNTIME = ReferenceRuntime()
