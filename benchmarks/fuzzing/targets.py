"""What a child does with a mutant: it lists it, loads it, and answers one run; or reads it as one of edgekit's own files.

These stand where a runtime stands in :mod:`edgekit.core.model_server`, around the runtime and the inspector that ship. What
they raise that is no :class:`~edgekit.core.errors.EdgekitError` is a finding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.core.entry_points import load
from edgekit.core.errors import EdgekitError
from edgekit.core.model_server import LoadedModel

__all__ = ["IMPORTS", "report"]


class _Nothing:
    """The session of a file that did not load."""

    inputs = outputs = ()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def close(self) -> None: ...


class Examiner:
    """A runtime that first lists a file, and keeps what the listing and the loading said."""

    def __init__(self, runtime: str, inspector: str) -> None:
        self.runtime, self.inspector = runtime, inspector
        self.found: dict[str, list[str]] = {}

    def version(self) -> str:
        return str(load("runtimes", self.runtime).version())

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> Any:
        inspector, runtime = load("inspectors", self.inspector), load("runtimes", self.runtime)
        self.found["inspect"], _ = _tried(lambda: inspector.inspect(path, kept={}))
        self.found["load"], session = _tried(lambda: runtime.load(path, threads=threads, options=options or {}))
        return session or _Nothing()


class OwnFiles:
    """Every reader of edgekit's own files, on a folder as a run is, or on one file of TOML."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def version(self) -> str:
        return ""

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002
        for name, read in _readers(path).items():
            self.found[name], _ = _tried(read)
        return _Nothing()


def _readers(path: Path) -> dict[str, Callable[[], Any]]:
    import os

    from edgekit.core.cache import FolderCache
    from edgekit.core.compressed import load_golden, read_record
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.recipe import Recipe
    from edgekit.core.run import RunFolder
    from edgekit.core.selftest import SelfTest
    from edgekit.device_tests.arrays import read_arrays
    from edgekit.device_tests.profiles import load_profile

    if path.suffix == ".toml":
        is_profile = b"runtimes" in path.read_bytes()
        return {"profile": lambda: load_profile(str(path))} if is_profile else {"recipe": lambda: Recipe.read(path)}
    run, taken = RunFolder(path), Path(os.environ["TMPDIR"], "taken")
    taken.mkdir(exist_ok=True)
    return {
        "run": run.manifest,
        "artifacts": run.load_artifacts,
        "compressed": lambda: read_record(run.compressed),
        "contract": lambda: QuantizationContract.read_json(run.compressed / "contract.json"),
        "golden": lambda: load_golden(run.compressed),
        "arrays": lambda: read_arrays(run.compressed / "golden.npz"),
        "selftest": lambda: SelfTest.load(run.artifacts / "onnx" / "selftest"),
        "cache": lambda: FolderCache(path / "cache", 10**6).take("0" * 8, taken),
    }


def _tried(work: Callable[[], Any]) -> tuple[list[str], Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ["", ""], work()
    except EdgekitError as reason:
        return [type(reason).__name__, str(reason)[:2000]], None
    except MemoryError:
        return ["MemoryError", ""], None
    except Exception as reason:
        return [f"!{type(reason).__name__}", f"{_place(reason)}: {str(reason)[:500]}"], None


def _place(reason: BaseException) -> str:
    """Where an exception that should not have come out was raised."""
    trace, place = reason.__traceback__, "?"
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "edgekit" in str(file) or "runtimes" in file.parts:
            place = f"{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def report(loaded: LoadedModel, arrays: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001
    """What was found in a child: stage -> error type (empty: none; with ``!``: none of edgekit's) and message."""
    return loaded.runtime.found, {}  # type: ignore[attr-defined]


TFLITE = Examiner("litert", "tflite")
ONNX = Examiner("onnxruntime", "onnx")
ORT = Examiner("onnxruntime", "ort")
COREML = Examiner("coreml-reference", "coreml")
PT2 = Examiner("torch-export", "pt2")
OWN = OwnFiles()

IMPORTS = ("importlib.metadata", "email.message", "email.feedparser", "email.policy", "fuzzing.targets")
"""What every child needs; what a runtime needs is found by loading a seed once."""


def imported(loaded: LoadedModel, arrays: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001
    """Modules a child has imported by now, in the order in which it did."""
    import sys

    return [name for name, module in sys.modules.items() if module is not None and not name.startswith("__")], {}
