"""LiteRT's C interface, as far as profiling needs it: the Python interpreter cannot tell what its operators cost.

The functions and the record of an event are those of ``litert/c`` (litert_compiled_model.h, litert_profiler.h,
litert_profiler_event.h; https://github.com/google-ai-edge/LiteRT) as ``libLiteRt.so`` of ai-edge-litert 2.3 exports them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError, UnsupportedOpError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["CompiledModel", "Event"]

_Handle = ctypes.c_void_p
_CPU = 1
_LOCK_TO_WRITE = 1
_TYPE_BYTES = 256
"""Room for a ``LiteRtRankedTensorType``: element type, rank, eight sizes and eight strides."""
_LIBRARIES = {"linux": "libLiteRt.so", "darwin": "libLiteRt.dylib"}
_KERNEL_MODES = {"xnnpack": 0, "builtin": 2}
"""``LiteRtCpuKernelMode`` of litert_cpu_options.h."""


class _Memory(ctypes.Structure):
    _fields_ = [("footprint", ctypes.c_int64), ("allocated", ctypes.c_uint64), ("in_use", ctypes.c_uint64)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p), ("type", ctypes.c_int32), ("start_us", ctypes.c_uint64), ("elapsed_us", ctypes.c_uint64),
        ("before", _Memory), ("after", _Memory), ("index", ctypes.c_uint64), ("second_index", ctypes.c_uint64),
        ("source", ctypes.c_int32),
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Event:
    """Something LiteRT's profiler recorded.

    Args:
        tag: What ran: ``"CONV_2D"``, ``"Convolution (NHWC, QC8) IGEMM"``.
        type: ``tflite::Profiler::EventType``: 2 an operator of the file, 8 one inside a delegate.
        index: Number of the operator, in its graph or its delegate.
        elapsed_us: Microseconds.
    """

    tag: str
    type: int
    index: int
    elapsed_us: int


class CompiledModel:
    """A model compiled with the profiler on.

    Args:
        data: The file; one that the interpreter has accepted (LiteRT's C interface trusts what it is given).
        source: Its name, for messages.
        threads: Threads the kernels may use.
        provider: ``"xnnpack"`` or ``"builtin"``.

    Raises:
        IntegrityError: LiteRT cannot compile the model.
        UnsupportedOpError: The library is not to be found here.
    """

    def __init__(self, data: bytes, source: str, *, threads: int, provider: str) -> None:
        self._source = source
        self._library = _library()
        self._kept: list[Any] = [ctypes.create_string_buffer(data, len(data))]
        self._environment, self._model, options, self._compiled = (_Handle() for _ in range(4))
        self._call("LiteRtCreateEnvironment", 0, None, ctypes.byref(self._environment))
        self._call(
            "LiteRtCreateModelFromBuffer", self._environment, self._kept[0], ctypes.c_size_t(len(data)), ctypes.byref(self._model)
        )
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._set(options, "runtime_options_string", "enable_profiling = true\n")
        self._set(options, "xnnpack", f"kernel_mode = {_KERNEL_MODES[provider]}\nnum_threads = {threads}\n")
        self._call("LiteRtCreateCompiledModel", self._environment, self._model, options, ctypes.byref(self._compiled))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Fill the input buffers."""
        import numpy as np

        for name, buffer in self._inputs.items():
            values = np.ascontiguousarray(inputs[name])
            place, size = _Handle(), ctypes.c_size_t()
            self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
            if size.value != values.nbytes:
                raise IntegrityError(f"{self._source}: input '{name}' takes {size.value} bytes; {values.nbytes} were given.")
            self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(place), _LOCK_TO_WRITE)
            ctypes.memmove(place, values.ctypes.data, values.nbytes)
            self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """One inference."""
        buffers = []
        for side in (self._inputs, self._outputs):
            array = (_Handle * len(side))(*[buffer.value for buffer in side.values()])
            buffers += [ctypes.c_size_t(len(side)), array]
        self._call("LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(0), *buffers)

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Event]]:
        """What the profiler sees in the block; the list is filled when it ends."""
        profiler = _Handle()
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, ctypes.byref(profiler))
        self._call("LiteRtResetProfiler", profiler)
        self._call("LiteRtStartProfiler", profiler)
        found: list[Event] = []
        yield found
        self._call("LiteRtStopProfiler", profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
        events = (_Event * max(count.value, 1))()
        if count.value:
            self._call("LiteRtGetProfilerEvents", profiler, count, events)
        for event in events[: count.value]:
            tag = (event.tag or b"").decode("utf-8", "replace")
            found.append(Event(tag, int(event.type), int(event.index), int(event.elapsed_us)))

    def close(self) -> None:
        """Free the model."""
        for buffer in (*self._inputs.values(), *self._outputs.values()):
            self._library.LiteRtDestroyTensorBuffer(buffer)
        self._library.LiteRtDestroyCompiledModel(self._compiled)
        self._library.LiteRtDestroyModel(self._model)
        self._library.LiteRtDestroyEnvironment(self._environment)

    def _set(self, options: Any, kind: str, text: str) -> None:
        """Options LiteRT takes as TOML, which it copies when it compiles."""
        payload, opaque = ctypes.create_string_buffer(text.encode()), _Handle()
        self._kept.append(payload)
        self._call("LiteRtCreateOpaqueOptions", ctypes.c_char_p(kind.encode()), payload, _KEEPER, ctypes.byref(opaque))
        self._call("LiteRtAddOpaqueOptions", options, opaque)

    def _buffers(self, side: str) -> dict[str, Any]:
        """Buffers of the first signature's inputs or outputs, by name."""
        signature, count = _Handle(), ctypes.c_size_t()
        self._call("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0), ctypes.byref(signature))
        self._call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        found: dict[str, Any] = {}
        for index in map(ctypes.c_size_t, range(count.value)):
            name, tensor, needs, buffer = ctypes.c_char_p(), _Handle(), _Handle(), _Handle()
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            self._call(f"LiteRtGetSignature{side}Name", signature, index, ctypes.byref(name))
            self._call(f"LiteRtGetSignature{side}TensorByIndex", signature, index, ctypes.byref(tensor))
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            asked = f"LiteRtGetCompiledModel{side}BufferRequirements"
            self._call(asked, self._compiled, ctypes.c_size_t(0), index, ctypes.byref(needs))
            made = "LiteRtCreateManagedTensorBufferFromRequirements"
            self._call(made, self._environment, kind, needs, ctypes.byref(buffer))
            found[(name.value or b"").decode("utf-8", "replace")] = buffer
        return found

    def _call(self, function: str, *arguments: Any) -> None:
        """Call a function of the library that returns a status."""
        status = getattr(self._library, function)(*arguments)
        if status:
            raise IntegrityError(f"{self._source}: LiteRT's {function} failed with status {status}.")


def _keep(_payload: int) -> None:
    """In place of the function LiteRT would free options with: Python owns them."""


_KEEPER = ctypes.CFUNCTYPE(None, _Handle)(_keep)


def _library() -> Any:
    """The shared library that comes with ai-edge-litert.

    Raises:
        UnsupportedOpError: It is not there, or lacks the profiler.
    """
    spec = importlib.util.find_spec("ai_edge_litert")
    name = _LIBRARIES.get(sys.platform, "")
    folders: Sequence[str] = spec.submodule_search_locations or () if spec is not None else ()
    path = next((place for folder in folders if name and (place := Path(folder, name)).is_file()), None)
    library = ctypes.CDLL(str(path)) if path is not None else None
    if library is None or not hasattr(library, "LiteRtCompiledModelGetProfiler"):
        raise UnsupportedOpError(
            "LiteRT's C library with its profiler is not part of ai-edge-litert here (2.3 on Linux and macOS has it)."
            " Measure the model without --profile."
        )
    for function in ("LiteRtDestroyTensorBuffer", "LiteRtDestroyCompiledModel", "LiteRtDestroyModel", "LiteRtDestroyEnvironment"):
        getattr(library, function).restype = None
    return library
