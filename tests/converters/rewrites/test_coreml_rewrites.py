"""Each rewrite for Core ML: coremltools' own call fails or answers wrongly, and edgekit's package answers as torch does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.compression.capture import capture
from edgekit.converters.coreml import CONVERTER, quiet_coremltools
from edgekit.converters.preparation import prepare
from edgekit.core.artifact import ExportOptions
from edgekit.core.errors import EdgekitError
from edgekit.core.recipe import Recipe
from edgekit.core.task import Task
from edgekit.runtimes.coreml.reference import RUNTIME

TOLERANCE = 1e-5  # of the largest value


class Net(torch.nn.Module):
    def __init__(self, function: Callable[..., Any], *parts: torch.nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, a: torch.Tensor) -> Any:
        return self.function(a, *self.parts)


@dataclasses.dataclass(frozen=True)
class Case:
    rewrite: str
    function: Callable[..., Any]
    shape: tuple[int, ...] = (1, 4, 8, 8)
    parts: Callable[[], tuple[torch.nn.Module, ...]] = tuple
    dtype: str = "float32"
    output_names: tuple[str, ...] = ()

    def build(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return Net(self.function, *self.parts()).eval()

    def inputs(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if self.dtype == "float32":
            return rng.standard_normal(self.shape).astype(np.float32)
        return rng.integers(0, 2 if self.dtype == "bool" else 9, self.shape).astype(self.dtype)


def tracked_norm() -> tuple[torch.nn.Module, ...]:
    norm = torch.nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    norm.running_mean = torch.randn(4)
    norm.running_var = torch.rand(4) + 0.5
    return (norm,)


def outputs_and_states(a: torch.Tensor, lstm: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    outputs, states = lstm(a)
    return outputs, *states


CASES = [
    Case("remainder-by-truncation", lambda a: torch.fmod(a, 0.3)),
    Case("erfc-to-erf", torch.erfc),
    Case("hypot-to-root", lambda a: torch.hypot(a, a + 1)),
    Case("round-to-decimals", lambda a: torch.round(a, decimals=1)),
    Case("inverse-hyperbolic-to-logarithm", torch.asinh),
    Case("acosh-to-logarithm", lambda a: torch.acosh(a.abs() + 1.5)),
    Case("copysign-to-where", lambda a: torch.copysign(a, a - 0.5)),
    Case("isinf-to-comparison", lambda a: torch.isinf(1 / (a > 0).float()).float()),
    Case("reciprocal-to-division", lambda a: torch.reciprocal(a.abs() + 0.01)),
    Case("shift-to-multiplication", lambda a: a << 2, (3, 5), dtype="int32"),
    Case("shift-to-division", lambda a: (a - 4) >> 1, (3, 5), dtype="int32"),
    Case("low-bits-to-remainder", lambda a: (a - 4) & 3, (3, 5), dtype="int32"),
    Case("boolean-or", lambda a: ((a > 1) | (a < -1)).float()),
    Case("boolean-xor", lambda a: ((a > -1) ^ (a < 1)).float()),
    Case("boolean-and", lambda a: ((a > -1) & (a < 1)).float()),
    Case("where-of-equal-shapes", lambda a: torch.where(a > 0, a, 0.5)),
    Case("standard-deviation-to-mean", lambda a: a * a.std()),
    Case("variance-to-mean", lambda a: a * a.var()),
    Case("variance-and-mean", lambda a: torch.var_mean(a, 1)),
    Case("argmax-of-flat-tensor", lambda a: a.argmax()),
    Case("product-to-multiplications", lambda a: a.prod(1)),
    Case("running-maximum-by-doubling", lambda a: a.cummax(2)[0]),
    Case("median-to-sort", lambda a: a.median(1)[0]),
    Case("negative-pad-to-slice", lambda a: functional.pad(a, (-1, 2, 0, -2))),
    Case("circular-pad-to-concatenation", lambda a: functional.pad(a, (1, 2, 0, 3), mode="circular")),
    Case("dilated-max-pool-to-slices", lambda a: functional.max_pool2d(a, 3, 2, 1, dilation=2)),
    Case("average-with-divisor", lambda a: functional.avg_pool2d(a, 2, divisor_override=3)),
    Case("adaptive-average-3d-to-slices", lambda a: functional.adaptive_avg_pool3d(a, (2, 3, 2)), (1, 2, 4, 7, 6)),
    Case("adaptive-max-3d-to-slices", lambda a: functional.adaptive_max_pool3d(a, (2, 3, 2)), (1, 2, 4, 7, 6)),
    Case("instance-norm-by-its-statistics", lambda a, norm: norm(a), parts=tracked_norm),
    Case("group-norm-of-five-axes", lambda a, norm: norm(a), (1, 4, 3, 4, 5), parts=lambda: (torch.nn.GroupNorm(2, 4),)),
    Case("bicubic-resize-to-matrices", lambda a: functional.interpolate(a, size=(13, 5), mode="bicubic")),
    Case("trilinear-resize-to-matrices", lambda a: functional.interpolate(a, scale_factor=2, mode="trilinear"), (1, 2, 3, 4, 5)),
    Case(
        "antialiased-bilinear-resize-to-matrices",
        lambda a: functional.interpolate(a, size=(3, 4), mode="bilinear", antialias=True),
    ),
    Case("fractional-bilinear-resize-to-matrices", lambda a: functional.interpolate(a, scale_factor=1.7, mode="bilinear")),
    Case("roll-of-flat-tensor", lambda a: torch.roll(a, 3)),
    Case("diagonal-to-index", lambda a: torch.diagonal(a, 1, 2, 3)),
    Case("strides-to-index", lambda a: torch.as_strided(a, (1, 4, 4, 4), (256, 64, 16, 2))),
    Case("sliding-windows-to-index", lambda a: a.unfold(2, 4, 2)),
    Case(
        "fold-to-transposed-convolution",
        lambda a: functional.fold(functional.unfold(a, 3, padding=1), (8, 8), 3, padding=1),
    ),
    Case("index-add-to-scatter", lambda a: a.index_add(2, torch.tensor([1, 1, 5]), a[:, :, :3])),
    Case("index-copy-to-scatter", lambda a: a.index_copy(2, torch.tensor([0, 2, 5]), a[:, :, :3] * 2)),
    Case("index-fill-to-scatter", lambda a: a.index_fill(2, torch.tensor([0, 5]), 1.5)),
    Case(
        "affine-grid-to-matmul",
        lambda a: functional.affine_grid(a, [2, 3, 4, 5], align_corners=False).abs(),
        (2, 2, 3),
    ),
    Case("constants-computed", lambda a: a[:, :, *torch.tril_indices(8, 8)]),
    Case("outputs-of-their-own", lambda a: (a, *[a * 2] * 2), output_names=("x", "y", "z")),
    Case("scatter-reduce-along-axis", lambda a: a.scatter_reduce(3, torch.zeros_like(a).long() + 2, a, "amax")),
    Case("lstm-kept-whole", outputs_and_states, (2, 5, 4), parts=lambda: (torch.nn.LSTM(4, 6, 2, batch_first=True),)),
    Case("lstm-kept-whole", lambda a, lstm: lstm(a)[0], (5, 2, 4), parts=lambda: (torch.nn.LSTM(4, 6, bidirectional=True),)),
    Case("rnn-kept-whole", lambda a, rnn: rnn(a), (2, 5, 4), parts=lambda: (torch.nn.RNN(4, 6, bidirectional=True),)),
]


def flat(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else [leaf for part in result for leaf in flat(part)]


def answer(case: Case, inputs: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [tensor.numpy() for tensor in flat(case.build()(torch.from_numpy(inputs)))]


def error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest difference of any output, of its largest value; infinite where shapes differ."""
    if [array.shape for array in found] != [array.shape for array in expected]:
        return float("inf")
    pairs = [(one.astype(np.float64), other.astype(np.float64)) for one, other in zip(found, expected, strict=True)]
    return max(float(np.abs(one - other).max(initial=0) / max(1e-30, np.abs(other).max(initial=0))) for one, other in pairs)


def vendor_error(case: Case, folder: Path) -> float:
    """Of coremltools' own call; infinite where it fails."""
    import coremltools

    example = torch.from_numpy(case.inputs(0))
    program = torch.export.export(case.build(), (example,)).run_decompositions({})
    model = coremltools.convert(
        program,
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32,
        outputs=[coremltools.TensorType(name=name) for name in case.output_names] or None,
        skip_model_load=True,
    )
    model.save(str(folder / "vendor.mlpackage"))
    return error(run(folder / "vendor.mlpackage", case.inputs(1)), answer(case, case.inputs(1)))


def run(package: Path, inputs: np.ndarray) -> list[np.ndarray]:
    session = RUNTIME.load(package)
    (spec,) = session.inputs
    found = session.run({spec.name: inputs.astype(spec.dtype)})
    return [found[output.name] for output in session.outputs]


def shown(number: int, case: Case) -> Any:
    """One case in four is shown by every test run, all of them by ``make proofs``."""
    return pytest.param(case, marks=() if number % 4 == 0 else pytest.mark.proof, id=f"{case.rewrite}-{number}")


@pytest.mark.parametrize("case", [shown(number, case) for number, case in enumerate(CASES)])
def test_package_answers_as_torch_where_the_vendor_does_not(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet_coremltools(), monkeypatch.context() as patch:
        from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY as REGISTRY

        known = REGISTRY.name_to_func_mapping.items()
        theirs_alone = {name: function for name, function in known if not function.__module__.startswith("edgekit")}
        patch.setattr(REGISTRY, "name_to_func_mapping", theirs_alone)
        try:
            theirs = vendor_error(case, tmp_path)
        except Exception:
            theirs = float("inf")
    assert theirs > TOLERANCE, f"coremltools now takes what '{case.rewrite}' is for: the rewrite can go"

    task = Task(name="net", model=case.build(), example_inputs=case.inputs(0))
    state = capture(task, recipe=Recipe.parse_text("none"))
    given, before = prepare(state, target="coreml", options=ExportOptions())
    artifact = CONVERTER.convert(given, output=tmp_path / "ours", options=ExportOptions())
    assert case.rewrite in {record.name for record in (*before, *artifact.rewrites)}
    session = RUNTIME.load(artifact.path)
    found = session.run({"a": case.inputs(1).astype(session.inputs[0].dtype)})
    assert error([found[spec.name] for spec in artifact.outputs], answer(case, case.inputs(1))) < TOLERANCE


def test_boolean_inputs_are_given_as_integers(tmp_path: Path) -> None:
    case = Case("", lambda a: torch.where(a, 1.5, -2.0), (3, 4), dtype="bool")
    task = Task(name="net", model=case.build(), example_inputs=case.inputs(0))
    state = capture(task, recipe=Recipe.parse_text("none"))
    given, _ = prepare(state, target="coreml", options=ExportOptions())
    artifact = CONVERTER.convert(given, output=tmp_path, options=ExportOptions())
    assert artifact.inputs[0].dtype == "int32"
    assert error(run(artifact.path, case.inputs(1)), answer(case, case.inputs(1))) == 0


@pytest.mark.parametrize("function", [lambda a: a * 3_000_000_000, lambda a: a + torch.tensor([1 << 40])])
def test_integers_beyond_32_bits_are_refused(function: Callable[..., Any], tmp_path: Path) -> None:
    case = Case("", function, (3, 1), dtype="int64")
    state = capture(Task(name="net", model=case.build(), example_inputs=case.inputs(0)), recipe=Recipe.parse_text("none"))
    given, _ = prepare(state, target="coreml", options=ExportOptions())
    with pytest.raises(EdgekitError, match="32 bits"):
        CONVERTER.convert(given, output=tmp_path, options=ExportOptions())
