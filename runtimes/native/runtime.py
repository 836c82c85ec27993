"""The runner as a runtime: ``native-onnx`` and ``native-tflite`` run files in a C++ process, through the library's C interface.

They compute what :mod:`edgekit.runtimes.onnxruntime` and :mod:`edgekit.runtimes.litert` compute, bit for bit, and show what a
device without Python computes. They are used when asked for by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import DType, TensorSpec, check_inputs
from edgekit.runtimes.native.build import build_runner
from edgekit.runtimes.native.libraries import library_of, version_of
from edgekit.runtimes.native.process import RunnerProcess

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array

__all__ = ["ONNX_RUNTIME", "TFLITE_RUNTIME", "NativeRuntime", "NativeSession", "command_words"]

_SHARED = (
    RuntimeOption(name="library", kind="text", default="", meaning="The runtime's shared library; empty: the Python package's."),
    RuntimeOption(name="affinity", kind="text", default="", meaning="Processors to run on, such as 0,2-3; empty: any."),
)
_ONNX = (
    RuntimeOption(
        name="provider", kind="text", default="cpu", values=("cpu", "xnnpack", "nnapi", "qnn", "coreml"),
        meaning="Execution provider of ONNX Runtime.",
    ),
    RuntimeOption(
        name="optimization", kind="choice", default="all", values=("all", "extended", "basic", "none"),
        meaning="How far the graph is rewritten at load.",
    ),
    RuntimeOption(name="spinning", kind="flag", default=True, meaning="Threads spin between operators instead of sleeping."),
    *_SHARED,
)  # fmt: skip
_TFLITE = (
    RuntimeOption(
        name="provider", kind="text", default="xnnpack", values=("xnnpack", "builtin", "reference", "gpu", "npu"),
        meaning="Kernels, or the path of a delegate's library (with TensorFlow Lite's C library).",
    ),
    *_SHARED,
)  # fmt: skip


class NativeRuntime:
    """edgekit-runner with one runtime's library.

    Args:
        name: Name in the registry.
        target: Whose files it runs: ``"onnx"`` or ``"tflite"``.
        extra: Packaging extra that brings the library.
        module: Python package the library lies in.
        options: Options of :meth:`load`.
    """

    kind = "native"
    """Used when asked for by name; never chosen for a target by itself."""
    hides = ("torch", "tensorflow", "keras", "coremltools", "jax", "onnx")

    def __init__(self, *, name: str, target: str, extra: str, module: str, options: Sequence[RuntimeOption]) -> None:
        self.name = name
        self.target = target
        self.extra = extra
        self.modules = (module,)
        self.options = tuple(options)

    def version(self) -> str:
        """Version of the package that brings the library."""
        return version_of(self.target)

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> NativeSession:
        """Start the program with a model; it is built first where it is not in the cache.

        Raises:
            IntegrityError: The file is missing, or not one the library can read.
            UnsupportedOpError: It holds an operator the library has no kernel for, or the library lacks something.
            UsageError: An option is unknown or cannot be used here; the program cannot be built.
            WorkerError: The program crashed.
        """
        chosen = read_settings(options, self.options, runtime=f"Runtime '{self.name}'")
        if not path.is_file():
            raise IntegrityError(f"{path} cannot be read: there is no such file. Export again.")
        command = [build_runner(), path, *command_words(self.target, threads=threads, **chosen)]
        return NativeSession(RunnerProcess(command, source=str(path)), str(path))

    def replay_layers(
        self,
        artifact: Artifact,
        contract: QuantizationContract,  # noqa: ARG002  the protocol's signature
        recorded: Mapping[str, Array],  # noqa: ARG002
        *,
        threads: int = 1,  # noqa: ARG002
    ) -> dict[str, Array]:
        """Not done by the runner: it runs whole files.

        Raises:
            UnsupportedOpError: Always; names the runtime that does it with the same kernels.
        """
        other = {"onnx": "onnxruntime", "tflite": "litert"}[self.target]
        raise UnsupportedOpError(
            f"Runtime '{self.name}' runs whole files and cannot run layers of '{artifact.label}' alone."
            f" Use runtime '{other}', which has the same kernels."
        )


class NativeSession:
    """A model in a runner process.

    Args:
        process: With the model loaded.
        source: Where it came from, for messages.
    """

    def __init__(self, process: RunnerProcess, source: str) -> None:
        self._process = process
        described = process.description
        metadata = described["model"]["metadata"]
        self.inputs = _specs(described["inputs"], metadata.get("edgekit.inputs"), source)
        self.outputs = _specs(described["outputs"], metadata.get("edgekit.outputs"), source)
        self.is_closed = False

    @property
    def description(self) -> dict[str, Any]:
        """The program's own document: library, version, provider, options honoured, time and memory of loading."""
        return self._process.description

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong, or the session is closed.
            WorkerError: The program crashed.
        """
        if self.is_closed:
            raise DataError("This session is closed. Load the model again.")
        check_inputs(inputs, self.inputs)
        found = self._process.run([inputs[spec.name] for spec in self.inputs], output_count=len(self.outputs))
        return {spec.name: array for spec, array in zip(self.outputs, found, strict=True)}

    def measure(self, *, warm_up: int = 0, repeat: int = 0, seconds: float = 0.0) -> dict[str, Any]:
        """Time inferences on the inputs of the last run; the report's ``latency``, in nanoseconds.

        Raises:
            DataError: Nothing ran yet, or neither ``repeat`` nor ``seconds`` is given.
        """
        return self._process.measure(warm_up=warm_up, repeat=repeat, seconds=seconds)

    def close(self) -> None:
        """Free the model."""
        if not self.is_closed:
            self.is_closed = True
            self._process.close()


def command_words(
    target: str,
    *,
    threads: int,
    provider: str = "",
    library: str | Path = "",
    affinity: str = "",
    optimization: str = "all",
    spinning: bool = True,
) -> list[str | Path]:
    """The program's options, as its ``--help`` lists them.

    Args:
        target: ``"onnx"`` or ``"tflite"``.
        threads: Threads the library may use.
        provider: Execution provider, kernels, or the path of a delegate.
        library: Shared library; empty: that of the installed package.
        affinity: Processors.
        optimization: ONNX Runtime's graph optimisation.
        spinning: ONNX Runtime's threads spin.
    """
    words: list[str | Path] = ["--threads", str(threads), "--library", library or library_of(target)]
    if provider:
        words += ["--provider", provider]
    if affinity:
        words += ["--affinity", affinity]
    if target == "onnx":
        words += ["--optimization", optimization, "--spinning", "on" if spinning else "off"]
    return words


def _specs(rows: list[dict[str, Any]], stored: str | None, source: str) -> tuple[TensorSpec, ...]:
    """Specs as the program says them, completed by what edgekit wrote into the file's metadata."""
    grids = {spec.name: spec for spec in _stored_specs(stored, source)}
    return tuple(_spec(row, grids.get(row["name"])) for row in rows)


def _spec(row: dict[str, Any], stored: TensorSpec | None) -> TensorSpec:
    shape: list[int] = row["shape"]
    dtype, scale, zero_point = cast("DType", row["dtype"]), row.get("scale"), row.get("zero_point")
    flexible = stored.flexible if stored is not None and len(stored.shape) == len(shape) else ()
    example = stored.shape if stored is not None and flexible else (1,) * len(shape)
    if stored is not None and stored.dtype == dtype:
        scale, zero_point = stored.scale, stored.zero_point
    quantized = dtype in {"int8", "uint8", "int16"} and bool(scale)
    return TensorSpec(
        name=row["name"],
        shape=tuple(one if size < 0 else size for size, one in zip(shape, example, strict=True)),
        dtype=dtype,
        scale=scale if quantized else None,
        zero_point=zero_point if quantized else None,
        flexible=flexible,
    )


def _stored_specs(stored: str | None, source: str) -> list[TensorSpec]:
    try:
        rows = json.loads(stored) if stored else []
    except json.JSONDecodeError as reason:
        raise IntegrityError(f"{source}: its metadata 'edgekit.inputs' or 'edgekit.outputs' is not JSON: {reason}.") from reason
    return [TensorSpec.parse(row, source=f"{source}: metadata") for row in rows]


ONNX_RUNTIME = NativeRuntime(name="native-onnx", target="onnx", extra="onnx", module="onnxruntime", options=_ONNX)
TFLITE_RUNTIME = NativeRuntime(name="native-tflite", target="tflite", extra="tflite", module="ai_edge_litert", options=_TFLITE)
