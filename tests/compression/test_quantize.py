from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.quantize import RUNNER
from edgekit.compression.quantize.canonical.form import canonicalize
from edgekit.compression.quantize.capability import families, family_of
from edgekit.compression.quantize.grid import activation_grid, bias_integers, weight_grid, weight_integers
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError, DataError, IntegrityError, RecipeError, UsageError
from edgekit.core.plugins import silent
from edgekit.core.program import answer_samples
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task


def quantize(task: Task, **fields: Any) -> Compressed:
    recipe = Recipe.parse_text("int8")
    return RUNNER(capture(task, recipe=recipe), step=Quantize(**fields), task=task, progress=silent)[0]


def snr_db(signal: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((signal**2).sum() / ((signal - other) ** 2).sum()))


def test_every_layer_of_a_depthwise_net_becomes_integers(image_task: Task) -> None:
    state = quantize(image_task)
    assert state.contract.float_layers == ()
    names = [entry.name for entry in state.contract.activations]
    assert names == ["image", "stem.0", "block.conv.0", "block.conv.3", "block.conv.6", "block.add", "mean", "head"]
    assert {entry.role for entry in state.contract.parameters} == {"weight", "bias"}
    assert len(state.contract.parameters) == 10
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    assert snr_db(signal, state.golden.outputs["output"]) > 25


def test_saturation_replaces_every_clamp(image_task: Task) -> None:
    state = quantize(image_task)
    targets = {str(node.target) for node in state.program.graph.nodes}
    assert not targets & {"aten.relu.default", "aten.relu6.default", "aten.hardtanh.default", "aten.relu_.default"}
    assert state.contract["stem.0"].zero_point == (-128,)


def test_program_holds_integers_only_and_the_contract_knows_them(image_task: Task) -> None:
    state = quantize(image_task)
    buffers = dict(state.program.named_buffers())
    assert dict(state.program.named_parameters()) == {}
    by_node = {name: buffers[target] for name, target in state.program.graph_signature.inputs_to_buffers.items()}
    for entry in state.contract.parameters:
        stored = by_node[entry.node]
        if entry.role == "weight":
            assert stored.dtype == torch.int8
            integers = stored.numpy()
            assert np.abs(integers).max() <= 127
        else:
            steps = stored.double().numpy() / np.array(entry.scale)
            integers = np.rint(steps).astype(np.int32)
            np.testing.assert_array_equal((integers * np.array(entry.scale)).astype(np.float32), stored.numpy())
        assert hashlib.sha256(np.ascontiguousarray(integers).tobytes()).hexdigest() == entry.sha256
    floats = [name for name, value in buffers.items() if value.is_floating_point() and not name.endswith(("scale", "on_grid"))]
    assert floats == []


def test_bias_scale_is_the_float32_product(image_task: Task) -> None:
    contract = quantize(image_task).contract
    inputs = np.float32(contract["image"].scale[0])
    products = inputs * np.array(contract["stem.0.weight"].scale, np.float32)
    np.testing.assert_array_equal(products, np.array(contract["stem.0.bias"].scale, np.float32))


def test_saved_program_is_bit_identical(image_task: Task, tmp_path: Path) -> None:
    state = quantize(image_task).save(tmp_path / "compressed")
    again = Compressed.load(tmp_path / "compressed")
    assert again.contract == state.contract
    assert again.record == state.record
    for name, value in state.program.named_buffers():
        assert torch.equal(value, dict(again.program.named_buffers())[name])
    outputs = answer_samples(again.program, again.golden.inputs, ["output"])
    np.testing.assert_array_equal(outputs["output"], state.golden.outputs["output"])
    (tmp_path / "compressed" / "program.pt2").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"program.pt2 has sha256"):
        Compressed.load(tmp_path / "compressed")


class Sequence1d(nn.Module):
    """1-D CNN with pooling, concat, a sigmoid gate and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(4, 8, 5, padding=2, bias=False), nn.BatchNorm1d(8), nn.ReLU())
        self.pool = nn.MaxPool1d(2)
        self.gate = nn.Conv1d(8, 8, 1)
        self.up = nn.ConvTranspose1d(16, 6, 2, stride=2)
        self.norm = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pool(self.first(x))
        y = torch.cat([y, torch.sigmoid(self.gate(y))], dim=1)
        return self.fc(self.norm(self.up(y)).mean(-1))


def test_shared_and_fixed_scales(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    state = quantize(make_task(Sequence1d(), (1, 4, 32)))
    contract = state.contract
    assert contract["first.0"].scale == contract["pool"].scale == contract["cat"].scale
    assert contract["first.0"].group == contract["cat"].group is not None
    assert (contract["sigmoid"].scale, contract["sigmoid"].zero_point) == ((1 / 256,), (-128,))
    regrid = contract["sigmoid.regrid"]
    assert (regrid.scale, regrid.zero_point) == (contract["cat"].scale, contract["cat"].zero_point)
    assert contract["up.weight"].channel_axis == 1
    assert len(contract["up.weight"].scale) == 6
    assert contract.float_layers == ()
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    assert snr_db(signal, state.golden.outputs["output"]) > 20


class Encoder(nn.Module):
    """One transformer block: float islands between integer kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(tokens) + torch.arange(6, device=tokens.device).unsqueeze(-1) * 0.1)
        return self.feed(x + self.attention(x, x, x, need_weights=False)[0])


def test_transformer_keeps_float_islands_and_integer_indices(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 20, (8, 6))
    state = quantize(make_task(Encoder(), (1, 6), example_inputs=tokens[:1], calibration=[tokens]))
    operators = {layer.op for layer in state.contract.float_layers}
    assert {"layer_norm", "gelu"} <= operators
    assert all(entry.name != "tokens" for entry in state.contract.entries)
    assert {"embed.weight", "feed.0.weight", "feed.2.weight"} <= {entry.name for entry in state.contract.parameters}
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    assert snr_db(signal, state.golden.outputs["output"]) > 25


def test_kept_layers_stay_float(image_task: Task) -> None:
    state = quantize(image_task, keep_float=("head",))
    assert [(layer.layer, layer.reason) for layer in state.contract.float_layers] == [("head", "kept float by the recipe")]
    with pytest.raises(RecipeError, match="Did you mean 'head'"):
        quantize(image_task, keep_float=("heat",))


def test_second_quantization_is_refused(image_task: Task) -> None:
    state = quantize(image_task)
    with pytest.raises(UsageError, match="quantized already"):
        RUNNER(state, step=Quantize(), task=image_task, progress=silent)


def test_nothing_to_quantize(make_task: Callable[..., Task]) -> None:
    with pytest.raises(ContractError, match="nothing to quantize"):
        quantize(make_task(nn.LayerNorm(4), (1, 4)))


class Blows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.log(x))


def test_layer_that_gives_nan_is_named(make_task: Callable[..., Task]) -> None:
    with pytest.raises(ContractError, match="NaN or infinite"):
        quantize(make_task(Blows(), (1, 2, 4)))


def test_missing_calibration_is_named(image_task: Task, make_task: Callable[..., Task]) -> None:
    with pytest.raises(DataError, match="no calibration data"):
        quantize(make_task(image_task.build_model(), (1, 3, 16, 16), calibration=None))


class Mutating(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        z = torch.relu(y)
        y.clamp_(max=0.5)
        return z + y


def test_in_place_edits_keep_their_meaning(make_task: Callable[..., Task]) -> None:
    task = make_task(Mutating(), (1, 4))
    state = capture(task, recipe=Recipe.parse_text("none"))
    example = torch.linspace(-1, 1, 4).reshape(1, 4)
    module = canonicalize(state.program, (example,))
    assert torch.equal(module(example), task.build_model()(example.clone()))
    assert not [node for node in module.graph.nodes if str(node.target).endswith("clamp_.default")]


class ThroughView(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y.view(-1).clamp_(max=0.5)
        return y


def test_edit_through_a_view_is_refused(make_task: Callable[..., Task]) -> None:
    state = capture(make_task(ThroughView(), (1, 4)), recipe=Recipe.parse_text("none"))
    with pytest.raises(ContractError, match="in place through a view"):
        canonicalize(state.program, (torch.ones(1, 4),))


def test_ranges_do_not_depend_on_batching(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    task = make_task(Sequence1d(), (1, 4, 32))
    (batch,) = list(task.calibration_batches())
    rows = [row[None] for row in batch["x"]]
    again = make_task(task.build_model(), (1, 4, 32), calibration=rows)
    again.build_model().load_state_dict(task.build_model().state_dict())
    assert quantize(task).contract == quantize(again).contract


def test_sample_count_is_respected(image_task: Task) -> None:
    seen: dict[str, list[int]] = {}
    recipe = Recipe.parse_text("int8")
    RUNNER(
        capture(image_task, recipe=recipe),
        step=Quantize(sample_count=5),
        task=image_task,
        progress=lambda what, done, _: seen.setdefault(what, []).append(done),
    )
    assert seen["calibrate"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (-5.0, -1.0), (2.0, 9.0)])
def test_activation_grid_covers_the_range_and_zero(low: float, high: float) -> None:
    grid = activation_grid(low, high)
    assert -128 <= grid.zero_point <= 127
    assert grid.scale * (grid.minimum - grid.zero_point) <= min(low, 0) + grid.scale / 2
    assert grid.scale * (grid.maximum - grid.zero_point) >= max(high, 0) - grid.scale / 2


def test_constant_and_tiny_ranges_have_a_scale() -> None:
    assert activation_grid(0.0, 0.0).scale > 0
    assert activation_grid(0.0, 1e-44).scale > 0


def test_weights_use_the_whole_grid_and_dead_channels_are_safe() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.0, 0.0], [0.5, 0.1]])
    scales = weight_grid(weight, 0, bias=None, input_scale=0.1)
    np.testing.assert_array_equal(weight_integers(weight, scales, 0).abs().amax(1), [127, 0, 127])
    assert scales[1] == scales[0]


def test_bias_widens_the_weight_scale_until_it_fits() -> None:
    weight, bias = torch.full((1, 1), 1e-6), torch.tensor([1e4])
    scales = weight_grid(weight, 0, bias=bias, input_scale=1e-3)
    assert bias_integers(bias, np.float32(1e-3) * scales, layer="x").abs().item() <= 2**30
    with pytest.raises(ContractError, match="does not fit int32"):
        bias_integers(bias, np.array([1e-9], np.float32), layer="x")


def test_capability_table_is_consistent() -> None:
    operators = [operator for family in families().values() for operator in family.operators]
    assert len(operators) == len(set(operators))
    for operator in operators:
        namespace, packet, overload = operator.split(".")
        assert hasattr(getattr(getattr(torch.ops, namespace), packet), overload), operator
        assert family_of(operator) is not None
    assert all((family.range is not None) == (family.role == "fixed") for family in families().values())


class Labelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        return self.fc(left) - self.fc(right)


def test_inputs_keep_the_names_the_task_gives_them(make_task: Callable[..., Task]) -> None:
    rng = np.random.default_rng(0)
    batch = {name: rng.normal(size=(8, 4)).astype(np.float32) for name in ("left", "right")}
    task = make_task(Labelled(), (1, 4), example_inputs={name: value[:1] for name, value in batch.items()}, calibration=[batch])
    names = [entry.name for entry in quantize(task).contract.entries]
    assert set(names[:2]) == {"left", "right"}
    assert {"fc.weight", "fc.weight:2", "sub"} <= set(names)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_same_padding_is_spelled_out(make_task: Callable[..., Task]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(4, 8, 5, padding="same", dilation=2), nn.ReLU(), nn.Conv1d(8, 3, 3, padding="valid"))
    state = quantize(make_task(net, (1, 4, 32)))
    assert state.contract.float_layers == ()
    assert state.record.outputs[0].shape == (1, 3, 30)
    signal = answer_samples(state.float_program, state.golden.inputs, ["output"])["output"]
    assert snr_db(signal, state.golden.outputs["output"]) > 25
    even = quantize(make_task(nn.Sequential(nn.Conv1d(4, 4, 4, padding="same"), nn.Conv1d(4, 3, 3)), (1, 4, 32)))
    assert even.contract.float_layers == ()
