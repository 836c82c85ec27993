"""LiteRT (the TensorFlow Lite runtime) with its default XNNPACK kernels: what runs on phones.

The interpreter is used rather than ``CompiledModel``: the same kernels at the same speed, and loading it searches for no
GPU and NPU libraries.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, UsageError, nearest
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import DType, TensorSpec, check_inputs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.operator_profile import OperatorProfile
    from edgekit.core.provenance import Kernels, TracedFile
    from edgekit.core.stored import StoredFile
    from edgekit.core.tensors import Array

__all__ = ["RUNTIME", "LiteRTRuntime", "LiteRTSession"]

_IDENTIFIER_PLACE = slice(4, 8)
_IDENTIFIER = b"TFL3"
_KERNELS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
_LIBRARIES = (".so", ".dylib", ".dll")
_DELEGATE_MAKER = "tflite_plugin_create_delegate"

OPTIONS = (
    RuntimeOption(
        name="provider", kind="text", default="xnnpack", values=tuple(_KERNELS),
        meaning="XNNPACK's kernels (what ships), TFLite's own optimised or reference ones, or the path of a delegate's library.",
    ),
)  # fmt: skip
"""Options of ``load``."""


class LiteRTRuntime:
    """Runs ``.tflite`` files."""

    name = "litert"
    extra = "tflite"
    target = "tflite"
    modules = ("ai_edge_litert",)
    hides = ("torch", "tensorflow", "jax", "onnx", "onnxruntime", "coremltools")
    options = OPTIONS

    def version(self) -> str:
        """Version of ai-edge-litert."""
        return metadata.version("ai-edge-litert")

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> LiteRTSession:
        """Load a model file.

        Raises:
            IntegrityError: The file is missing, or not a model the runtime can read.
            UnsupportedOpError: It holds an operator the runtime has no kernel for.
            UsageError: An option is unknown.
        """
        interpreter = make_interpreter(read_model(path), str(path), threads=threads, provider=asked_provider(options))
        try:
            return LiteRTSession(interpreter)
        except (ValueError, RuntimeError) as reason:  # a signature that names tensors which are not there
            raise _explain(reason, str(path)) from reason

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Run every quantized layer of the file alone; see :mod:`edgekit.runtimes.litert_replay`."""
        from edgekit.runtimes.litert_replay import Replay

        data = read_model(artifact.path)
        make_interpreter(data, str(artifact.path), threads=1)  # refuses a damaged file before Python reads it unverified
        replay = Replay(data, artifact.contract_report, contract, recorded)
        return replay.run(make_interpreter(replay.model, f"{artifact.path}, cut into layers", threads=threads))

    def trace(self, path: Path, inputs: Mapping[str, Array], *, kernels: Kernels = "reference") -> TracedFile:
        """Every tensor of a ``.tflite`` file, by TFLite's own kernels or XNNPACK; see :mod:`edgekit.runtimes.litert_trace`."""
        from edgekit.runtimes.litert_trace import StoredGraph

        data, source = read_model(path), str(path)
        interpreter = make_interpreter(data, source, threads=1, provider="reference", keep_all=True)  # refuses a damaged file
        if kernels == "shipped":
            interpreter = make_interpreter(StoredGraph(data).with_all_outputs(), source, threads=1)
        words = "TFLite's reference kernels" if kernels == "reference" else "XNNPACK, every tensor an output"
        return StoredGraph(data).trace(interpreter, inputs, method=words)

    def cut(self, path: Path, destination: Path, *, reads: Mapping[str, Array], writes: Sequence[str]) -> Path:
        """A piece of a ``.tflite`` file, ``part.tflite``; see :meth:`edgekit.core.provenance.Tracer.cut`."""
        from edgekit.runtimes.litert_trace import StoredGraph

        data = read_model(path)
        make_interpreter(data, str(path), threads=1)
        return StoredGraph(data).cut(reads=list(reads), writes=writes, destination=destination)

    def read_file(self, path: Path, inputs: Mapping[str, Array]) -> StoredFile:  # noqa: ARG002  reading it is enough
        """What a ``.tflite`` file holds; see :mod:`edgekit.runtimes.litert_stored`."""
        from edgekit.runtimes.litert_stored import read_file

        data = read_model(path)
        make_interpreter(data, str(path), threads=1)  # refuses a damaged file before Python reads it unverified
        return read_file(data)

    def profile(
        self,
        path: Path,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        options: Mapping[str, Any] | None = None,
        run_count: int = 20,
    ) -> OperatorProfile:
        """Every operator's time, by LiteRT's own profiler; see :mod:`edgekit.runtimes.litert_profile`."""
        from edgekit.runtimes.litert_profile import profile_model

        session = self.load(path, threads=threads, options=options)  # refuses a damaged file before the compiler trusts it
        check_inputs(inputs, session.inputs)
        session.close()
        provider = asked_provider(options)
        with _without_native_chatter():
            return profile_model(read_model(path), path.name, inputs, threads=threads, provider=provider, run_count=run_count)


class LiteRTSession:
    """A loaded model; names are those of its signature, or its tensors' where it has none.

    Args:
        interpreter: With tensors allocated.
    """

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        inputs, outputs = _edges(interpreter)
        self.inputs = tuple(_spec(name, details) for name, details in inputs.items())
        self.outputs = tuple(_spec(name, details) for name, details in outputs.items())
        self._input_places = {name: int(details["index"]) for name, details in inputs.items()}
        self._output_places = {name: int(details["index"]) for name, details in outputs.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong, or the session is closed.
        """
        if self._interpreter is None:
            raise DataError("This session is closed. Load the model again.")
        check_inputs(inputs, self.inputs)
        for name, place in self._input_places.items():
            self._interpreter.set_tensor(place, inputs[name])
        try:
            self._interpreter.invoke()
        except RuntimeError as reason:
            raise DataError(f"LiteRT could not run the model on these inputs: {_first_line(reason)}") from reason
        return {name: self._interpreter.get_tensor(place) for name, place in self._output_places.items()}

    def close(self) -> None:
        """Free the model."""
        self._interpreter = None


def read_model(path: Path) -> bytes:
    """The file's bytes, read once.

    Raises:
        IntegrityError: It is missing or empty, or does not carry the format's identifier.
    """
    try:
        data = path.read_bytes()
    except OSError as reason:
        raise IntegrityError(f"{path} cannot be read: {reason.strerror}. Export again.") from reason
    if data[_IDENTIFIER_PLACE] != _IDENTIFIER:
        raise IntegrityError(
            f"{path} is not a TFLite model: bytes 4 to 8 are {data[_IDENTIFIER_PLACE]!r}, expected {_IDENTIFIER!r}. Export again."
        )
    return data


def make_interpreter(data: bytes, source: str, *, threads: int, provider: str = "xnnpack", keep_all: bool = False) -> Any:
    """An interpreter with tensors allocated; with ``keep_all`` every tensor can be read after a run.

    Raises:
        UsageError: The delegate cannot be loaded.
        IntegrityError: LiteRT cannot read the model.
        UnsupportedOpError: LiteRT has no kernel for one of its operators.
    """
    module = importlib.import_module("ai_edge_litert.interpreter")
    resolver = getattr(module.OpResolverType, _KERNELS.get(provider, _KERNELS["builtin"]))
    delegates = None if provider in _KERNELS else [_delegate(provider, module)]
    try:
        with _without_native_chatter(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LiteRT warns that keeping all tensors is for debugging: it is
            interpreter = module.Interpreter(
                model_content=data,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                experimental_delegates=delegates,
                experimental_preserve_all_tensors=keep_all,
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as reason:
        raise _explain(reason, source) from reason
    return interpreter


def _explain(reason: Exception, source: str) -> Exception:
    text = str(reason)
    first = _first_line(reason)
    if "custom op" in text.lower() or "Didn't find op" in text:
        return UnsupportedOpError(
            f"{source}: LiteRT has no kernel for an operator of this model: {first}. Remove that operator from the model, or run"
            " the file with a runtime that registers it."
        )
    return IntegrityError(f"{source} is not a model LiteRT {metadata.version('ai-edge-litert')} can load: {first}. Export again.")


def _first_line(reason: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(reason).splitlines() if line.strip()), type(reason).__name__)


def asked_provider(options: Mapping[str, Any] | None) -> str:
    """The kernels or the delegate's library that options ask for.

    Raises:
        UsageError: An option or its value is unknown, or there is no such library.
    """
    provider = str(read_settings(options, OPTIONS, runtime="LiteRT")["provider"])
    if provider not in _KERNELS and not provider.endswith(_LIBRARIES):
        raise UsageError(
            f"LiteRT: option 'provider' is '{provider}'; known: {', '.join(_KERNELS)}, or the path of a delegate's shared library"
            f" ({', '.join(_LIBRARIES)}).{nearest(provider, _KERNELS)}"
        )
    return provider


def _delegate(path: str, module: Any) -> Any:
    """An external delegate.

    Raises:
        UsageError: It is not there, or is no delegate.
    """
    if not Path(path).is_file():
        raise UsageError(f"There is no delegate library {path}. Give the path of a TFLite delegate's shared library, or xnnpack.")
    try:  # LiteRT's own loader leaves a half-made object behind where this fails
        library: Any = ctypes.CDLL(path)
    except OSError as reason:
        raise UsageError(f"{path} is not a library this system can load: {_first_line(reason)}.") from reason
    if not hasattr(library, _DELEGATE_MAKER):
        raise UsageError(f"{path} is no TFLite delegate: it lacks the function {_DELEGATE_MAKER} of TFLite's external delegates.")
    try:
        return module.load_delegate(path)
    except ValueError as reason:
        raise UsageError(f"The delegate {path} does not start: {_first_line(reason)}.") from reason


def _edges(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details of inputs and outputs by name, in the order of the graph."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        return {found["name"]: found for found in inputs}, {found["name"]: found for found in outputs}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return _in_order(runner.get_input_details(), inputs), _in_order(runner.get_output_details(), outputs)


def _in_order(named: Mapping[str, Any], order: list[Any]) -> dict[str, Any]:
    places = [int(found["index"]) for found in order]
    return dict(sorted(named.items(), key=lambda item: places.index(int(item[1]["index"]))))


def _spec(name: str, details: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    dtype = np.dtype(details["dtype"]).name
    scale, zero_point = details["quantization"]
    quantized = dtype in {"int8", "uint8", "int16"} and scale != 0
    return TensorSpec(
        name=name,
        shape=tuple(int(size) for size in details["shape"]),
        dtype=cast("DType", dtype),
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )


@contextlib.contextmanager
def _without_native_chatter() -> Iterator[None]:
    """Send what native code writes to stderr ("Created ... XNNPACK delegate") nowhere; its errors arrive as exceptions."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no stderr to protect
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)


RUNTIME = LiteRTRuntime()
