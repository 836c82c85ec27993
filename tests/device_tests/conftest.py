"""A compressed folder of the fake target, its reference answers, and quick measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import CompressedRecord
from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
from edgekit.core.metric import top1
from edgekit.core.profile import DeviceProfile
from edgekit.core.task import Task
from edgekit.core.tensors import quantize
from edgekit.device_tests import validate, workbench
from edgekit.device_tests.reference import Reference
from edgekit.device_tests.testing import FakeModel

FAKE = "edgekit.device_tests.testing:FAKE_RUNTIME"
FLOAT_MODEL = FakeModel(weight=((1.0, -1.0, 0.0), (0.0, 1.0, -1.0)), bias=(0.0, 0.1, 0.0))
INT8_MODEL = FakeModel(weight=((1.0, -1.0, 0.0), (0.0, 1.0, -1.001)), bias=(0.0, 0.1, 0.0))


def entry(name: str, role: str = "activation", **changes: Any) -> TensorQuantization:
    fields: dict[str, Any] = {
        "name": name, "role": role, "op": "linear", "shape": (1, 3), "dtype": "int8", "scale": (0.05,), "zero_point": (0,),
        "minimum": -128, "maximum": 127, "node": name,
    }  # fmt: skip
    return TensorQuantization.model_validate(fields | changes)


CONTRACT = QuantizationContract(entries=(entry("x", "input", shape=(1, 2)), entry("fc"), entry("fc.weight", "weight")))
REPORT = ContractReport(
    outcomes=tuple(EntryOutcome(name=one.name, outcome="honoured", tensor=one.name, dtype="int8") for one in CONTRACT.entries)
)


@dataclasses.dataclass
class Bench:
    """Everything :func:`validate_device` needs, of the fake target (a fixture: test modules cannot import this file)."""

    runtime = FAKE
    float_model = FLOAT_MODEL
    int8_model = INT8_MODEL
    contract = CONTRACT
    report = REPORT

    folder: Path
    profile: DeviceProfile
    task: Task
    output: Path
    references: list[str] = dataclasses.field(default_factory=list)

    def artifact(self, precision: str = "int8", **changes: Any) -> Artifact:
        model = (FLOAT_MODEL if precision == "float32" else INT8_MODEL).replace(**changes)
        return model.export(self.folder, precision=precision, report=REPORT if precision == "int8" else None)

    def arguments(self, **changes: Any) -> dict[str, Any]:
        fixed = {
            "compressed_folder": self.folder / "compressed",
            "output": self.output,
            "log": self.folder / "log.txt",
            "task": self.task,
        }
        return fixed | changes


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A fake compressed program with 400 evaluation samples; the reference comes from numpy, timing takes a moment."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 2)).astype(np.float32)
    golden = rng.normal(size=(4, 1, 2)).astype(np.float32)
    targets = FLOAT_MODEL.answer(samples).argmax(1)
    task = Task(
        name="fake", model=lambda: None, example_inputs={"x": samples[:1]}, evaluation=[({"x": samples}, targets)], metric=top1
    )  # type: ignore[arg-type, return-value]  # never built
    folder = tmp_path / "compressed"
    folder.mkdir()
    CONTRACT.write_json(folder / "contract.json")
    CompressedRecord(name="fake", recipe={}, inputs=FLOAT_MODEL.inputs, outputs=FLOAT_MODEL.outputs).write_json(
        folder / "compressed.json"
    )
    np.savez(folder / "golden.npz", **{"inputs/x": golden, "outputs/output": INT8_MODEL.answer(golden)})
    profile = DeviceProfile.parse(
        {"name": "fake", "title": "A double", "runtimes": {"fake": {"runtime": FAKE}}, "timeout_s": 60}, source="test"
    )
    made = Bench(tmp_path, profile, task, tmp_path / "validation")
    monkeypatch.setattr(validate, "load_reference", _reference(samples, golden, made))
    monkeypatch.setattr(workbench, "_TIMING_BUDGET_S", 0.02)
    return made


def _reference(samples: Any, golden: Any, made: Bench) -> Callable[..., Reference]:
    arrays = {"recorded/x": quantize(golden, scale=0.05, zero_point=0)}
    arrays["recorded/fc"] = quantize(INT8_MODEL.answer(golden), scale=0.05, zero_point=0)
    for program, model in {"program": INT8_MODEL, "float": FLOAT_MODEL}.items():
        arrays[f"{program}/golden/output"] = model.answer(golden)
        arrays[f"{program}/evaluation/output"] = model.answer(samples)

    def load(*_: Any, evaluation: Path | None, **__: Any) -> Reference:
        made.references.append(str(evaluation))
        return Reference({key: array for key, array in arrays.items() if evaluation or "evaluation" not in key})

    return load
