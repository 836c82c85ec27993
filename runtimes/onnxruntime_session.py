"""Sessions of ONNX Runtime: the options a model is opened with, and inferences through arrays or through bound buffers.

Session settings follow ONNX Runtime's own threading and optimisation advice
(https://onnxruntime.ai/docs/performance/tune-performance/threading.html): the operators of a net for the edge run one
after the other, so all threads belong inside an operator, and they spin between operators instead of sleeping.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.damage import explaining_damage
from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, UsageError, nearest
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import DType, TensorSpec, check_inputs

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = [
    "OPTIONS",
    "OnnxSession",
    "asked_provider",
    "open_session",
    "provider_title",
    "session_options",
    "sums_saturate",
]

_TITLE = "ONNX Runtime"
_DTYPES: dict[str, DType] = {
    "tensor(bool)": "bool", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int16)": "int16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64",
}  # fmt: skip
_LEVELS = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}
_PROVIDERS = ("cpu", "xnnpack", "nnapi", "qnn", "coreml", "cuda", "tensorrt", "openvino", "dnnl", "acl", "dml", "webgpu")
_FALLBACK = "CPUExecutionProvider"

OPTIONS = (
    RuntimeOption(
        name="provider", kind="text", default="cpu", values=_PROVIDERS,
        meaning="Execution provider; what it has no kernel for runs on the processor.",
    ),
    RuntimeOption(
        name="io_binding", kind="flag", default=False,
        meaning="Outputs stay in buffers that are bound once, so that an inference allocates nothing.",
    ),
    RuntimeOption(
        name="optimization", kind="choice", default="all", values=tuple(_LEVELS),
        meaning="How far the graph is rewritten at load.",
    ),
    RuntimeOption(name="spinning", kind="flag", default=True, meaning="Threads spin between operators instead of sleeping."),
)  # fmt: skip
"""Options of ``load``."""


class OnnxSession:
    """A model in ONNX Runtime.

    Args:
        session: The loaded ``onnxruntime.InferenceSession``.
        source: Where it came from, for messages.
        is_bound: Inferences go through bound buffers.
    """

    def __init__(self, session: Any, source: str, *, is_bound: bool = False) -> None:
        self._session = session
        stored = session.get_modelmeta().custom_metadata_map
        self.inputs = _specs(session.get_inputs(), stored.get("edgekit.inputs"), source)
        self.outputs = _specs(session.get_outputs(), stored.get("edgekit.outputs"), source)
        self._output_names = [spec.name for spec in self.outputs]
        self._bound = _Bound(session, self._output_names) if is_bound else None

    @property
    def native(self) -> Any:
        """The ``onnxruntime.InferenceSession``."""
        return self._session

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong.
        """
        check_inputs(inputs, self.inputs)
        if self._session is None:
            raise DataError("The session is closed. Load the model again.")
        try:
            if self._bound is not None:
                return self._bound.run(inputs)
            return dict(zip(self._output_names, self._session.run(self._output_names, inputs), strict=True))
        except Exception as reason:  # ONNX Runtime's errors have no common base
            words = " ".join(str(reason).split())
            raise DataError(f"ONNX Runtime could not run the model on these inputs: {words}") from reason

    def close(self) -> None:
        """Free the model."""
        self._session = self._bound = None


class _Bound:
    """Inferences through ONNX Runtime's I/O binding: inputs are read where they lie, outputs written into buffers made once."""

    def __init__(self, session: Any, output_names: list[str]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._output_names = output_names
        for name in output_names:
            self._binding.bind_output(name)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        for name, values in inputs.items():
            self._binding.bind_cpu_input(name, np.ascontiguousarray(values))
        self._session.run_with_iobinding(self._binding)
        return dict(zip(self._output_names, self._binding.copy_outputs_to_cpu(), strict=True))


def open_session(
    data: bytes, source: str, *, threads: int, settings: Mapping[str, Any] | None = None, **more: Any
) -> OnnxSession:
    """A session on a model's bytes.

    Args:
        data: The file.
        source: Its name, for messages.
        threads: Threads inside an operator.
        settings: Values of :data:`OPTIONS`.
        more: Further attributes of ``onnxruntime.SessionOptions``.

    Raises:
        IntegrityError: The bytes are no model ONNX Runtime can read.
        UnsupportedOpError: It holds an operator ONNX Runtime has no kernel for.
        UsageError: An option is unknown, or its value is not to be had here.
    """
    import onnxruntime

    chosen = read_settings(settings, OPTIONS, runtime=_TITLE)
    providers = _providers(str(chosen["provider"]))
    configured = session_options(threads, chosen)
    for name, value in more.items():
        setattr(configured, name, value)
    try:
        session = onnxruntime.InferenceSession(data, configured, providers=providers)
    except Exception as reason:  # ONNX Runtime's errors have no common base
        raise _explain(reason, source, onnxruntime.__version__) from reason
    with explaining_damage(source):  # names and metadata that are no text
        return OnnxSession(session, source, is_bound=bool(chosen["io_binding"]))


def session_options(threads: int, chosen: Mapping[str, Any]) -> Any:
    """``onnxruntime.SessionOptions`` for values of :data:`OPTIONS`."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[chosen["optimization"]])
    settings.log_severity_level = 4  # what goes wrong comes as an exception too
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if chosen["spinning"] else "0")
    settings.add_session_config_entry("session.x64quantprecision", "1" if _saturates() else "0")
    return settings


def provider_title(name: str) -> str:
    """ONNX Runtime's word for a provider in ours.

    >>> provider_title("CPUExecutionProvider")
    'cpu'
    """
    return name.removesuffix("ExecutionProvider").lower()


def asked_provider(options: Mapping[str, Any] | None) -> str:
    """The provider that options ask for."""
    return str(read_settings(options, OPTIONS, runtime=_TITLE)["provider"])


def _providers(asked: str) -> list[str]:
    """The provider asked for, and the processor for what it leaves.

    Raises:
        UsageError: This build of ONNX Runtime has no such provider.
    """
    import onnxruntime

    here = {provider_title(name): name for name in onnxruntime.get_available_providers()}
    if asked.lower() not in here:
        raise UsageError(
            f"ONNX Runtime {onnxruntime.__version__} here has no execution provider '{asked}'; it has {', '.join(sorted(here))}."
            f"{nearest(asked, here)} Install a build of ONNX Runtime with that provider, or run on cpu."
        )
    return list(dict.fromkeys((here[asked.lower()], _FALLBACK)))


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
    text = " ".join(str(reason).split())
    if (
        type(reason).__name__ == "NotImplemented"
        or "is not a registered function/op" in text
        or "Could not find an implementation" in text
        or "No Op registered for" in text
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
