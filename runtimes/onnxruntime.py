"""ONNX Runtime on the processor: load ``.onnx`` or ``.ort``, run it, and run every quantized layer alone.

Session settings follow ONNX Runtime's own threading and optimisation advice
(https://onnxruntime.ai/docs/performance/tune-performance/threading.html): the operators of a net for the edge run one
after the other, so all threads belong inside an operator, and they spin between operators instead of sleeping.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, UsageError, nearest
from edgekit.core.tensors import DType, TensorSpec, check_inputs

if TYPE_CHECKING:
    import onnx

    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.provenance import Kernels, TracedFile
    from edgekit.core.stored import StoredFile
    from edgekit.core.tensors import Array

__all__ = ["RUNTIME", "OnnxRuntime", "OnnxSession", "sums_saturate"]

_DTYPES: dict[str, DType] = {
    "tensor(bool)": "bool", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int16)": "int16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64",
}  # fmt: skip
_LEVELS = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}
_OPTIONS = ("optimization", "spinning")


class OnnxSession:
    """A model in ONNX Runtime.

    Args:
        session: The loaded ``onnxruntime.InferenceSession``.
        source: Where it came from, for messages.
    """

    def __init__(self, session: Any, source: str) -> None:
        self._session = session
        stored = session.get_modelmeta().custom_metadata_map
        self.inputs = _specs(session.get_inputs(), stored.get("edgekit.inputs"), source)
        self.outputs = _specs(session.get_outputs(), stored.get("edgekit.outputs"), source)
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong.
        """
        check_inputs(inputs, self.inputs)
        if self._session is None:
            raise DataError("The session is closed. Load the model again.")
        return dict(zip(self._output_names, self._session.run(self._output_names, inputs), strict=True))

    def close(self) -> None:
        """Free the model."""
        self._session = None


class OnnxRuntime:
    """ONNX Runtime's CPU execution provider.

    Options of :meth:`load`: ``optimization`` (``"all"``, ``"extended"``, ``"basic"``, ``"none"``), ``spinning`` (bool).
    """

    name = "onnxruntime"
    target = "onnx"
    extra = "onnx"
    modules = ("onnxruntime", "onnx")
    hides = ("torch", "tensorflow", "keras", "coremltools", "jax")

    def version(self) -> str:
        """Version of the installed onnxruntime."""
        return metadata.version("onnxruntime")

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> OnnxSession:
        """Load a ``.onnx`` or ``.ort`` file; the bytes are read once.

        Raises:
            IntegrityError: The file is missing, or not one ONNX Runtime can read.
            UnsupportedOpError: It holds an operator ONNX Runtime has no kernel for.
            UsageError: An option is unknown.
        """
        return OnnxSession(_open(_read_whole(path), str(path), threads=threads, options=options or {}), str(path))

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Run every quantized layer of the file alone, with its own kernels; see :mod:`edgekit.runtimes.onnxruntime_replay`.

        Raises:
            IntegrityError: The file cannot be read.
            DataError: ``recorded`` has an entry of another shape or type than the contract.
        """
        from edgekit.runtimes.onnxruntime_replay import cut

        layers = cut(_read_whole(artifact.path), artifact.contract_report, contract, recorded)
        session = _open(layers.model, f"{artifact.path} (cut into layers)", threads=threads, options={})
        return layers.run(session, recorded)

    def trace(self, path: Path, inputs: Mapping[str, Array], *, kernels: Kernels = "reference") -> TracedFile:
        """Every tensor of a ``.onnx`` file, optimiser off or on; see :mod:`edgekit.runtimes.onnxruntime_trace`."""
        from edgekit.runtimes.onnxruntime_trace import trace_model, with_all_outputs

        model = self._read(path)
        level = "none" if kernels == "reference" else "all"
        session = _open(with_all_outputs(model), str(path), threads=1, options={"optimization": level, "spinning": False})
        words = f"ONNX Runtime, optimiser {'off' if level == 'none' else 'on'}, every value an output"
        return trace_model(session, model, inputs, method=words)

    def cut(self, path: Path, destination: Path, *, reads: Mapping[str, Array], writes: Sequence[str]) -> Path:
        """A piece of a ``.onnx`` file, ``part.onnx``; see :meth:`edgekit.core.provenance.Tracer.cut`."""
        from edgekit.runtimes.onnxruntime_trace import cut_model

        return cut_model(self._read(path), reads=reads, writes=writes, destination=destination)

    def _read(self, path: Path) -> onnx.ModelProto:
        from edgekit.runtimes.onnxruntime_trace import read_model

        return read_model(_read_whole(path), str(path))

    def read_file(self, path: Path, inputs: Mapping[str, Array]) -> StoredFile:
        """What a ``.onnx`` file holds and which kernels run for it; see :mod:`edgekit.runtimes.onnxruntime_stored`."""
        from edgekit.runtimes.onnxruntime_stored import read_file

        return read_file(_read_whole(path), str(path), inputs)


RUNTIME = OnnxRuntime()


def _read_whole(path: Path) -> bytes:
    """The model's bytes, read once; with its weights, where an export put them into a file beside it.

    Raises:
        IntegrityError: A file is missing, or the model names one outside its folder.
    """
    try:
        data = path.read_bytes()
        if not path.with_name(f"{path.name}.data").is_file():
            return data
        import onnx

        model = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as reason:  # ONNX has errors of its own for damaged files and for names that lead elsewhere
        words = getattr(reason, "strerror", None) or " ".join(str(reason).split())
        raise IntegrityError(f"{path} cannot be read: {words}. Export again.") from reason
    whole: bytes = model.SerializeToString()
    return whole


def _open(data: bytes, source: str, *, threads: int, options: Mapping[str, Any]) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(data, _session_options(threads, options), providers=["CPUExecutionProvider"])
    except Exception as reason:
        raise _explain(reason, source, onnxruntime.__version__) from reason


def _session_options(threads: int, options: Mapping[str, Any]) -> Any:
    import onnxruntime

    for name in options:
        if name not in _OPTIONS:
            raise UsageError(f"ONNX Runtime has no option '{name}' here; known: {', '.join(_OPTIONS)}.{nearest(name, _OPTIONS)}")
    level = str(options.get("optimization", "all"))
    if level not in _LEVELS:
        raise UsageError(f"Option 'optimization' is '{level}'; known: {', '.join(_LEVELS)}.{nearest(level, _LEVELS)}")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
    settings.log_severity_level = 4  # what goes wrong comes as an exception too
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.get("spinning", True) else "0")
    settings.add_session_config_entry("session.x64quantprecision", "1" if _saturates() else "0")
    return settings


def sums_saturate(machine: str, cpu_flags: str | None) -> bool:
    """Whether a processor sums products of unsigned and signed bytes in saturating 16 bits.

    x86 before VNNI does (``vpmaddubsw``), which gives wrong results with full-range int8 weights; ONNX Runtime has exact
    kernels for it at half the speed (onnxruntime#12088). Where the processor cannot be asked, exactness comes first.

    Args:
        machine: Architecture as the operating system calls it.
        cpu_flags: Text that names the processor's instruction sets; None where the system does not tell.

    >>> sums_saturate("aarch64", None), sums_saturate("x86_64", "avx2 fma"), sums_saturate("x86_64", "avx512_vnni")
    (False, True, False)
    """
    if machine.lower() not in {"x86_64", "amd64", "i386", "i686"}:
        return False
    return cpu_flags is None or not any(flag in cpu_flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))


@functools.cache
def _saturates() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        flags = None
    return sums_saturate(platform.machine(), flags)


def _explain(reason: Exception, source: str, version: str) -> Exception:
    """ONNX Runtime's load error as one of ours."""
    if isinstance(reason, UsageError):
        return reason
    text = " ".join(str(reason).split())
    if (
        type(reason).__name__ == "NotImplemented"
        or "is not a registered function/op" in text
        or "Could not find an implementation" in text
    ):
        return UnsupportedOpError(
            f"{source}: ONNX Runtime {version} has no kernel for an operator of this model. It says: {text}"
            " Export with another opset or ONNX Runtime version, or keep that layer out of the model."
        )
    return IntegrityError(f"{source} is not a model ONNX Runtime {version} can read. It says: {text or type(reason).__name__}")


def _specs(arguments: Any, stored: str | None, source: str) -> tuple[TensorSpec, ...]:
    """Specs as the runtime reports them, completed by the scale and zero point that the file's metadata holds."""
    grids = {spec.name: spec for spec in _stored_specs(stored, source)}
    specs = []
    for argument in arguments:
        shape = tuple(size if isinstance(size, int) else 1 for size in argument.shape)
        dtype = _DTYPES.get(argument.type)
        if dtype is None:
            raise UnsupportedOpError(
                f"{source}: '{argument.name}' is a {argument.type}; edgekit takes tensors of {', '.join(_DTYPES.values())}."
            )
        grid = grids.get(argument.name)
        same = grid is not None and grid.dtype == dtype
        flexible = grid.flexible if grid is not None and len(grid.shape) == len(shape) else ()
        if grid is not None and flexible:
            shape = tuple(e if isinstance(size, str) else size for size, e in zip(argument.shape, grid.shape, strict=True))
        specs.append(
            TensorSpec(
                name=argument.name,
                shape=shape,
                dtype=dtype,
                scale=grid.scale if grid is not None and same else None,
                zero_point=grid.zero_point if grid is not None and same else None,
                flexible=flexible,
            )
        )
    return tuple(specs)


def _stored_specs(stored: str | None, source: str) -> list[TensorSpec]:
    if not stored:
        return []
    try:
        rows = cast("list[Any]", json.loads(stored))
    except json.JSONDecodeError as reason:
        raise IntegrityError(f"{source}: its metadata 'edgekit.inputs' or 'edgekit.outputs' is not JSON: {reason}.") from reason
    return [TensorSpec.parse(row, source=f"{source}: metadata") for row in rows]
