"""A loaded model of any format: ``rt = edgekit.runtimes.load("model.tflite")``.

A model file from somebody else is copied and hashed here, and opened in a confined child only
(:mod:`edgekit.core.confinement`): what it does to its reader, it does not do to the caller.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from edgekit.core import entry_points
from edgekit.core.confinement import Confinement
from edgekit.core.errors import DataError, IntegrityError, UsageError
from edgekit.core.file_kinds import CORE_ML, ORT, PT2, SAVED_MODEL, TFLITE, TORCHSCRIPT, kind_of
from edgekit.core.measurement import Evidence
from edgekit.core.model_server import Order, run_session
from edgekit.core.served_model import Limits, ServedModel
from edgekit.core.snapshot import Snapshot, take_snapshot
from edgekit.core.spawned_child import StartedChild
from edgekit.core.tensors import TensorSpec, check_inputs, check_numbers

if TYPE_CHECKING:
    from edgekit.core.plugins import Runtime, Session
    from edgekit.core.tensors import Array

__all__ = ["LoadedModel", "load", "runtime_of"]

_RUNTIMES = {
    TFLITE.name: "litert",
    ORT.name: "onnxruntime",
    PT2.name: "torch-export",
    TORCHSCRIPT.name: "torchscript",
    SAVED_MODEL.name: "tensorflow",
    CORE_ML.name: "coreml" if sys.platform == "darwin" else "coreml-reference",
}
"""Kind of file -> runtime."""
_SUFFIXES = {".onnx": "onnxruntime", ".mlmodel": _RUNTIMES[CORE_ML.name]}
"""Kinds without a mark of their own, by name."""
_REFERENCE = frozenset({"coreml-reference", "ethos-u-vela", "tflite-micro"})
_COMPANIONS = (".data",)
"""What edgekit's export and torch.onnx call the file of an .onnx model's weights, behind its own name."""
_LOG_BYTES = 2**28


class LoadedModel:
    """A model that is ready to run; a context manager.

    Args:
        session: The model.
        path: Its file.
        snapshot: The copy that was loaded.
        folder: What goes when the model is closed.
        runtime: The runtime.
        allow_nan: Inputs may hold NaN.

    Attributes:
        inputs: What it takes, in order.
        outputs: What it returns, in order.
        path: The file it was loaded from.
        sha256: Digest of what was loaded.
        runtime: Name of the runtime, ``"litert"``.
        evidence: What numbers from it rest on: ``reference`` where edgekit executes the format's semantics, else ``measured``.
    """

    def __init__(
        self,
        session: ServedModel | _Here,
        *,
        path: Path,
        snapshot: Snapshot,
        folder: Path,
        runtime: Runtime,
        allow_nan: bool = False,
    ) -> None:
        self._session, self._allow_nan = session, allow_nan
        self._finalizer = weakref.finalize(self, _forget, session, folder)
        self.inputs: tuple[TensorSpec, ...] = session.inputs
        self.outputs: tuple[TensorSpec, ...] = session.outputs
        self.path, self.sha256, self.runtime = path, snapshot.sha256, runtime.name
        self._part = runtime
        self.evidence = Evidence.REFERENCE if runtime.name in _REFERENCE else Evidence.MEASURED
        self.load_s: float = session.load_s

    @property
    def version(self) -> str:
        """Version of the runtime."""
        return self._part.version()

    def run(self, inputs: Mapping[str, Array], *, timeout_s: float | None = None) -> dict[str, Array]:
        """One inference.

        Args:
            inputs: Input name -> array of the spec's shape and dtype.
            timeout_s: Wall-clock limit; the one it was loaded with where None. In the caller's own process there is none.

        Returns:
            Output name -> array.

        Raises:
            DataError: A name, shape, dtype or axis order is wrong, or an input holds NaN.
            WorkerError: The child died, or exceeded a limit; the model has to be loaded again.
        """
        check_inputs(inputs, self.inputs)
        if not self._allow_nan:
            check_numbers(inputs)
        return self._session.run(inputs, timeout_s=timeout_s)

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        arrays: Mapping[str, Array] | None = None,
        timeout_s: float | None = None,
    ) -> tuple[Any, dict[str, Array]]:
        """Call ``package.module:function`` where the model is; see :meth:`edgekit.core.served_model.ServedModel.call`."""
        return self._session.call(function, arguments, arrays=arrays, timeout_s=timeout_s)

    def close(self) -> None:
        """Free the model, end its process, remove its copy."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, reason: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LoadedModel({str(self.path)!r}, runtime={self.runtime!r}, version={self.version!r})"


def load(
    path: Path | str,
    *,
    runtime: str | None = None,
    threads: int = 1,
    options: Mapping[str, Any] | None = None,
    timeout_s: float = 60.0,
    memory_bytes: int | None = None,
    confined: bool = True,
    allow_nan: bool = False,
    log: Path | None = None,
    started: StartedChild | None = None,
) -> LoadedModel:
    """Load a model file of any format.

    Args:
        path: ``.tflite``, ``.onnx``, ``.ort``, ``.mlpackage``, ``.pt2``, TorchScript, or the folder of a SavedModel.
        runtime: Name of the runtime; None: the one for the file's kind, which its first bytes tell.
        threads: Threads the runtime may use.
        options: The runtime's own options.
        timeout_s: Wall-clock limit of loading, and of each run.
        memory_bytes: Most memory the model may take; None: three quarters of the machine's.
        confined: Open it in a confined child. False: in this process, for files you made yourself.
        allow_nan: Take inputs that hold NaN.
        log: File the child's output is appended to.
        started: A child that was started before, with the same threads and log; it is the model's from now on.

    Raises:
        UsageError: The file does not exist, or the runtime or an option is unknown.
        MissingExtraError: The runtime is not installed.
        IntegrityError: The file is damaged, hostile, or of no known kind.
        UnsupportedOpError: It holds an operator the runtime cannot run.
        WorkerError: The child died, ran out of time or of memory.
    """
    place, choices = Path(path), dict(options or {})
    with contextlib.ExitStack() as stack:
        if started is not None:
            stack.callback(started.discard)
        name, part = _runtime(runtime or runtime_of(place), threads)
        session: ServedModel | _Here
        if confined:
            if started is None:
                started = StartedChild(threads=threads, log=log)
                stack.callback(started.discard)
            folder = started.folder
            snapshot = take_snapshot(place, started.model, companions=_COMPANIONS)
            order = Order(runtime=entry_points.place("runtimes", name), path=str(snapshot.path), threads=threads, options=choices,
                          hides=tuple(part.hides))  # fmt: skip
            limits = Limits(timeout_s=timeout_s, memory_bytes=memory_bytes)
            session = _served(started, order, what=f"running {place.name}", limits=limits, shown=str(place))
        else:
            folder = Path(tempfile.mkdtemp(prefix="edgekit-model-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            snapshot = take_snapshot(place, folder, companions=_COMPANIONS)
            session = _Here(part, snapshot.path, threads=threads, options=choices)
        stack.pop_all()
    return LoadedModel(session, folder=folder, path=place, snapshot=snapshot, runtime=part, allow_nan=allow_nan)


def _runtime(name: str, threads: int) -> tuple[str, Runtime]:
    """The runtime of a name, once it is sure that it is installed.

    Raises:
        UsageError: It is unknown, or may have no thread.
        MissingExtraError: It is not installed.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; expected 1 or more.")
    part = cast("Runtime", entry_points.load("runtimes", name))
    entry_points.require(part)
    return name, part


def runtime_of(path: Path) -> str:
    """Name of the runtime for a file's kind.

    Raises:
        UsageError: There is no such file.
        IntegrityError: Its kind is unknown, or no runtime runs it.
    """
    try:
        kind = kind_of(path)
    except FileNotFoundError as reason:
        raise UsageError(f"{path} does not exist. Give a model file or folder.") from reason
    except OSError as reason:
        raise UsageError(f"{path} cannot be read: {reason.strerror or reason}.") from reason
    name = _RUNTIMES.get(kind.name) if kind else _SUFFIXES.get(path.suffix.lower())
    if name is None:
        advice = f" {kind.advice}" if kind and kind.advice else ""
        found = f"is {kind.title}, which no runtime here runs.{advice}" if kind else "is of no known kind."
        raise IntegrityError(
            f"{path} {found} Runnable are .tflite, .onnx, .ort, .mlpackage, .pt2, TorchScript and SavedModels; if it is one of"
            " these, name the runtime (runtime='onnxruntime')."
        )
    return name


def _served(started: StartedChild, order: Order, *, what: str, limits: Limits, shown: str) -> ServedModel:
    reads = (str(started.model), *_named_files(order.options))
    rights = Confinement(reads=reads, memory_bytes=limits.memory_bytes, cpu_s=None, file_bytes=_LOG_BYTES)
    session = ServedModel(
        started.child,
        Order(**{**vars(order), "confined": rights.model_dump(mode="json"), "scratch": str(started.scratch)}),
        what=what,
        limits=Limits(timeout_s=limits.timeout_s, memory_bytes=rights.memory_limit_bytes, answer_bytes=limits.answer_bytes),
        log=started.log,
        shown=shown,
    )
    for note in session.notes:
        warnings.warn(note, RuntimeWarning, stacklevel=3)
    return session


def _named_files(options: Mapping[str, Any]) -> list[str]:
    """Files that options name: the library of a delegate."""
    return [str(Path(value).resolve()) for value in options.values() if isinstance(value, str) and Path(value).is_file()]


class _Here:
    """A model in the caller's own process, with what a served one has."""

    def __init__(self, runtime: Runtime, path: Path, *, threads: int, options: Mapping[str, Any]) -> None:
        import time

        from edgekit.core.model_server import LoadedModel as Loaded

        start = time.perf_counter()
        self._session: Session | None = runtime.load(path, threads=threads, options=options)
        self.load_s = time.perf_counter() - start
        self._loaded = Loaded(runtime=runtime, session=self._session, path=path, threads=threads, options=options)
        self.inputs, self.outputs = self._session.inputs, self._session.outputs

    def run(self, inputs: Mapping[str, Array], *, timeout_s: float | None = None) -> dict[str, Array]:  # noqa: ARG002
        if self._session is None:
            raise DataError("This model is closed. Load it again.")
        return run_session(self._session, inputs)

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        arrays: Mapping[str, Array] | None = None,
        timeout_s: float | None = None,  # noqa: ARG002
    ) -> tuple[Any, dict[str, Array]]:
        import importlib

        module, _, name = function.partition(":")
        value, found = getattr(importlib.import_module(module), name)(self._loaded, dict(arrays or {}), **(arguments or {}))
        return value, dict(found)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None


def _forget(session: ServedModel | _Here, folder: Path) -> None:
    session.close()
    shutil.rmtree(folder, ignore_errors=True)
