"""edgekit: compress a trained model once, ship the same integers to every edge runtime, and prove it.

>>> import edgekit as ek
>>> ek.Recipe.parse_text("int8").name
'int8'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.bisection import Bisection, bisect
    from edgekit.compression.distill.features import AttentionTransfer, FeatureMatch
    from edgekit.compression.distill.logits import DKD, KD, LogitsMSE
    from edgekit.compression.distill.relations import CRD, RKD
    from edgekit.compression.distill.session import distill
    from edgekit.compression.quantize.training.session import finish_qat, prepare_qat
    from edgekit.compression.training.callbacks import Callback
    from edgekit.core.artifact import Artifact, ExportOptions
    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.device_bench import RunBench
    from edgekit.core.errors import EdgekitError
    from edgekit.core.file_bench import FileBench
    from edgekit.core.history import history
    from edgekit.core.history_entry import History
    from edgekit.core.metric import Metric, agreement, top1
    from edgekit.core.preprocessing import AudioPreprocessing, ImagePreprocessing
    from edgekit.core.profile import DeviceProfile
    from edgekit.core.recipe import (
        Auto,
        AwareTraining,
        Distill,
        LayerPrecision,
        Prune,
        Quantize,
        Recipe,
        Sparsify,
        Training,
    )
    from edgekit.core.source import SourceOptions
    from edgekit.core.sweep import SweepReport
    from edgekit.core.task import Task, load_task
    from edgekit.core.validation import ValidationReport
    from edgekit.device_tests.audit import audit
    from edgekit.file_bench import bench
    from edgekit.golden import selftest
    from edgekit.inspection import diff, inspect
    from edgekit.intake import load_model, task_from_file
    from edgekit.pareto import sweep
    from edgekit.pipeline import check_calibration, check_exactness, compress, export, sensitivity, validate
    from edgekit.run_bench import bench_run

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "core.artifact",
    "AttentionTransfer": "compression.distill.features",
    "AudioPreprocessing": "core.preprocessing",
    "Auto": "core.recipe",
    "AwareTraining": "core.recipe",
    "Bisection": "report.bisection",  # with its notebook renderer
    "CRD": "compression.distill.relations",
    "Callback": "compression.training.callbacks",
    "Compressed": "core.compressed",
    "DKD": "compression.distill.logits",
    "DeviceProfile": "core.profile",
    "Distill": "core.recipe",
    "EdgekitError": "core.errors",
    "ExportOptions": "core.artifact",
    "FeatureMatch": "compression.distill.features",
    "FileBench": "report.file_bench",  # with its notebook renderer
    "History": "report.history",  # with its notebook renderer
    "ImagePreprocessing": "core.preprocessing",
    "KD": "compression.distill.logits",
    "LayerPrecision": "core.recipe",
    "LogitsMSE": "compression.distill.logits",
    "Metric": "core.metric",
    "Prune": "core.recipe",
    "QuantizationContract": "core.contract",
    "Quantize": "core.recipe",
    "RKD": "compression.distill.relations",
    "Recipe": "core.recipe",
    "RunBench": "report.device_bench",  # with its notebook renderer
    "SourceOptions": "core.source",
    "Sparsify": "core.recipe",
    "SweepReport": "report.sweep",  # with its notebook renderer
    "Task": "core.task",
    "Training": "core.recipe",
    "ValidationReport": "report",  # with its notebook renderer
    "agreement": "core.metric",
    "audit": "device_tests.audit",
    "bench": "file_bench",
    "bench_run": "run_bench",
    "bisect": "bisection",
    "check_calibration": "pipeline",
    "check_exactness": "pipeline",
    "compress": "pipeline",
    "diff": "inspection",
    "distill": "compression.distill.session",
    "export": "pipeline",
    "finish_qat": "compression.quantize.training.session",
    "history": "report.history",  # with its notebook renderer
    "inspect": "inspection",
    "load_model": "intake",
    "load_task": "core.task",
    "prepare_qat": "compression.quantize.training.session",
    "selftest": "golden",
    "sensitivity": "pipeline",
    "sweep": "pareto",
    "task_from_file": "intake",
    "top1": "core.metric",
    "validate": "pipeline",
}

__all__ = [  # noqa: RUF022  plain order, as dir() gives it
    "Artifact",
    "AttentionTransfer",
    "AudioPreprocessing",
    "Auto",
    "AwareTraining",
    "Bisection",
    "CRD",
    "Callback",
    "Compressed",
    "DKD",
    "DeviceProfile",
    "Distill",
    "EdgekitError",
    "ExportOptions",
    "FeatureMatch",
    "FileBench",
    "History",
    "ImagePreprocessing",
    "KD",
    "LayerPrecision",
    "LogitsMSE",
    "Metric",
    "Prune",
    "QuantizationContract",
    "Quantize",
    "RKD",
    "Recipe",
    "RunBench",
    "SourceOptions",
    "Sparsify",
    "SweepReport",
    "Task",
    "Training",
    "ValidationReport",
    "__version__",
    "agreement",
    "audit",
    "bench",
    "bench_run",
    "bisect",
    "check_calibration",
    "check_exactness",
    "compress",
    "diff",
    "distill",
    "export",
    "finish_qat",
    "history",
    "inspect",
    "load_model",
    "load_task",
    "prepare_qat",
    "selftest",
    "sensitivity",
    "sweep",
    "task_from_file",
    "top1",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        if name in {"runtimes", "converters", "core", "report"}:
            return importlib.import_module(f"edgekit.{name}")
        raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"edgekit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
