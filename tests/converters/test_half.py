"""float16: what does not fit is predicted, kept in float32, and proven; what fits stays float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.converters.half import describe_risks, half_risks
from edgekit.core.artifact import ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.half_check import check_half
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(6, 1, 16)).astype(np.float32)


class Norm(nn.Module):
    """Root mean square normalisation as language models write it."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Net(nn.Module):
    """Activations of a few hundred, whose squares are beyond 65504."""

    def __init__(self, gain: float, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain, self.first, self.norm, self.head = gain, nn.Linear(16, 16), Norm(eps), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.first(x) * self.gain))


def risks(net: nn.Module, values: np.ndarray = ROWS) -> dict[str, str]:
    program = torch.export.export(net.eval(), (torch.from_numpy(values[0]),))
    return {risk.op: risk.kind for risk in half_risks(program, {"x": values})}


def test_squares_that_overflow_are_predicted() -> None:
    torch.manual_seed(0)
    found = risks(Net(1000.0))
    assert found["pow"] == "overflow"
    assert found["mean"] == "overflow"
    assert "linear" not in found


def test_nothing_is_predicted_where_all_fits() -> None:
    torch.manual_seed(0)
    assert risks(Net(1.0)) == {}
    assert describe_risks(()).startswith("Everything computes in float16")


def test_a_constant_that_becomes_zero_is_predicted() -> None:
    torch.manual_seed(0)
    assert risks(Net(1.0, eps=1e-12)) == {"add": "underflow"}


class Quotient(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.abs() * 1e-9 + 1e-30)


def test_a_denominator_that_becomes_zero_is_predicted_with_what_makes_it() -> None:
    found = risks(Quotient())
    assert found["div"] in {"underflow", "overflow"}
    assert found["add"] == "underflow"


def test_a_layer_norm_sums_squares() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    assert risks(Wide(), ROWS * 200) == {"layer_norm": "overflow"}
    assert risks(Wide()) == {}


def test_an_operand_beyond_float16_keeps_its_reader() -> None:
    class Big(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 1e6).tanh()

    assert risks(Big()) == {"mul": "overflow", "tanh": "overflow"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    torch.manual_seed(0)
    task = Task(name="loud", model=Net(1000.0).eval(), example_inputs=ROWS[0], calibration=list(ROWS))
    return pipeline.compress(task, recipe="none", output=tmp_path_factory.mktemp("half") / "run")


def answers(state: Compressed, path: Path) -> float:
    session = RUNTIME.load(path)
    [name] = state.golden.outputs
    [given] = state.golden.inputs
    found = np.stack([session.run({given: row})[name] for row in state.golden.inputs[given]])
    return float(np.abs(found - state.golden.outputs[name]).max())


def test_what_overflows_in_plain_float16_passes(saved: Compressed, tmp_path: Path) -> None:
    from edgekit.converters.coreml import CONVERTER

    made = {}
    for precision in ("float16", "auto"):
        folder = tmp_path / precision
        folder.mkdir()
        made[precision] = CONVERTER.convert(saved, output=folder, options=ExportOptions(compute_precision=precision))
    plain, ours = (answers(saved, made[precision].path) for precision in ("float16", "auto"))
    assert ours < 0.01 < plain or not np.isfinite(plain)
    assert ours < 0.01
    checked = check_half(made["auto"], saved)
    assert any("Kept in float32" in note and "norm" in note for note in checked.notes)
    assert any("checked with edgekit's reference executor" in note for note in checked.notes)
    types = {operation.type: operation.outputs[0].dtype for operation in read_package(made["auto"].path).operations}
    assert types["linear"] == "float16"
    assert "float32" in types.values()
    with pytest.raises(ConversionError, match="cannot compute in float16"):
        check_half(made["float16"].replace(options=ExportOptions(compute_precision="auto")), saved)


def test_the_export_keeps_everything_in_float16_where_it_fits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = Task(name="quiet", model=Net(1.0).eval(), example_inputs=ROWS[0], calibration=list(ROWS))
    pipeline.compress(task, recipe="none", output=tmp_path / "run")
    pipeline.export(tmp_path / "run", targets=["coreml"], options=ExportOptions(compute_precision="auto"))
    [artifact] = RunFolder(tmp_path / "run").load_artifacts()
    assert any(note.startswith("Everything computes in float16") for note in artifact.notes)
    operations = read_package(artifact.path).operations
    assert {operation.outputs[0].dtype for operation in operations if operation.type not in {"cast"}} == {"float16"}
