"""Every precision in the program: what the contract says, what the program computes, and what a recipe may not ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.compression.quantize.grid import covering_scales, wide_grid
from edgekit.compression.quantize.precision import Precisions, matches
from edgekit.core.compressed import Compressed
from edgekit.core.contract import TensorQuantization
from edgekit.core.errors import ContractError, RecipeError
from edgekit.core.recipe import LayerPrecision, Precision, Quantize, Recipe
from edgekit.core.task import Task


class Blocky(nn.Module):
    """A convolution, a 1x1 convolution and a linear layer: what blocks are for, and what they are not for."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 3, 2, 1)
        self.point = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.point(self.wide(x).relu()).relu().mean([2, 3]))


@pytest.fixture
def blocky(make_task: Callable[..., Task]) -> Task:
    torch.manual_seed(1)
    return make_task(Blocky(), (1, 3, 12, 12))


def compress(task: Task, word: str, **fields: object) -> Compressed:
    step = Quantize.from_word(word)
    if step is None:
        raise ValueError(word)
    return pipeline.compress(task, recipe=Recipe(name=word, steps=(step.replace(**fields),)))


def stored(compressed: Compressed, entry: TensorQuantization) -> np.ndarray:
    signature = compressed.program.graph_signature
    return compressed.program.state_dict[signature.inputs_to_buffers[entry.node]].numpy()


def noise_db(compressed: Compressed) -> float:
    wanted, found = (each.golden.outputs["output"].astype(np.float64) for each in (compressed.as_float(), compressed))
    return float(10 * np.log10((wanted**2).sum() / ((found - wanted) ** 2).sum()))


@pytest.mark.parametrize(
    ("word", "dtype", "least_db", "has_activations"),
    [
        ("w8", "int8", 35, False),
        ("w4", "int4", 12, False),
        ("w4-g8", "int4", 12, False),
        ("fp16", "float16", 60, False),
        ("w4a8", "int4", 10, True),
        ("dynamic-int8", "int8", 35, False),
        ("w8a16", "int8", 35, True),
    ],
)
def test_each_word_gives_its_types(blocky: Task, word: str, dtype: str, least_db: float, has_activations: bool) -> None:
    compressed = compress(blocky, word)
    weights = [entry for entry in compressed.contract.parameters if entry.role == "weight"]
    assert [entry.name for entry in weights] == ["wide.weight", "point.weight", "head.weight"]
    assert {entry.dtype for entry in weights} == {dtype}
    assert bool(compressed.contract.activations) == has_activations
    assert compressed.precision == word
    assert noise_db(compressed) > least_db
    for entry in weights:
        assert stored(compressed, entry).shape == entry.shape
        if entry.scale:
            assert stored(compressed, entry).min() >= entry.minimum
            assert stored(compressed, entry).max() <= entry.maximum


def test_int4_reaches_minus_eight_only_beside_float(blocky: Task) -> None:
    assert {word: compress(blocky, word).contract["head.weight"].minimum for word in ("w4", "w4a8")} == {"w4": -8, "w4a8": -7}


def test_blocks_are_for_matrices(blocky: Task) -> None:
    contract = compress(blocky, "w4-g8").contract
    blocks = {entry.name: entry.block_size for entry in contract.parameters}
    assert blocks == {"wide.weight": None, "point.weight": 8, "head.weight": 8}
    assert len(contract["point.weight"].scale) == 24 * 2


def test_blocks_restore_weights_better_than_channels(blocky: Task) -> None:
    errors = {}
    for word, size in (("w4", 24), ("w4-g8", 8)):
        compressed = compress(blocky, word, rounding="nearest", bias_correction=False)
        entry = compressed.contract["head.weight"]
        rows = stored(compressed, entry).reshape(-1, size) * np.asarray(entry.scale, np.float32)[:, None]
        weight = compressed.float_program.state_dict["head.weight"].detach().numpy()
        assert np.abs(rows.reshape(weight.shape) - weight).max() <= max(entry.scale) / 2 + 1e-7
        errors[word] = float(((rows.reshape(weight.shape) - weight) ** 2).mean())
    assert errors["w4-g8"] < errors["w4"]


def test_sixteen_bit_activations_are_symmetric(blocky: Task) -> None:
    compressed = compress(blocky, "w8a16")
    for entry in compressed.contract.activations:
        assert (entry.dtype, entry.zero_point, entry.minimum, entry.maximum) == ("int16", (0,), -32768, 32767)
    assert noise_db(compressed) > noise_db(compress(blocky, "int8"))


def test_run_time_ranges_need_no_calibration_data(blocky: Task) -> None:
    compressed = compress(blocky, "dynamic-int8")
    targets = [str(node.target) for node in compressed.program.graph.nodes]
    assert targets.count("quantized_decomposed.choose_qparams.tensor") == 1  # the linear layer; convolutions stay float
    assert [entry.precision for entry in compressed.contract.parameters] == ["w8", "w8", "dynamic-int8"]
    record = compressed.record.history[-1]
    assert record.details["sample_count"] == 0


def test_mixed_layers_meet_on_second_grids(blocky: Task) -> None:
    layers = (
        LayerPrecision(layers="*", precision="w4a8"),
        LayerPrecision(layers="point", precision="w8a16"),
        LayerPrecision(layers="head", precision="fp16"),
    )
    contract = compress(blocky, "int8", layers=layers).contract
    types = {entry.name: (entry.dtype, entry.precision) for entry in contract.parameters if entry.role == "weight"}
    assert types == {
        "wide.weight": ("int4", "w4a8"),
        "point.weight": ("int8", "w8a16"),
        "head.weight": ("float16", "fp16"),
    }
    regrids = [entry for entry in contract.activations if entry.op == "requantize"]
    assert [entry.dtype for entry in regrids] == ["int16", "int8"]  # into the 1x1 convolution, and out of it


def test_mixed_programs_are_saved_and_loaded(blocky: Task, tmp_path: Path) -> None:
    layers = (LayerPrecision(layers="point", precision="w4-g8"), LayerPrecision(layers="wide", precision="fp16"))
    compressed = compress(blocky, "dynamic-int8", layers=layers)
    compressed.save(tmp_path / "saved")
    again = Compressed.load(tmp_path / "saved")
    assert again.contract == compressed.contract
    with torch.no_grad():
        x = torch.from_numpy(compressed.golden.inputs["x"][0])
        assert torch.equal(again.program.module()(x), compressed.program.module()(x))


def test_keep_float_beats_every_pattern(blocky: Task) -> None:
    layers = (LayerPrecision(layers="*", precision="w4"),)
    contract = compress(blocky, "w8", layers=layers, keep_float=("head",)).contract
    assert [entry.name for entry in contract.parameters] == ["wide.weight", "point.weight"]
    assert [(layer.layer, layer.reason) for layer in contract.float_layers] == [("head", "kept float by the recipe")]


def test_the_last_match_wins() -> None:
    layers = [LayerPrecision(layers="a", precision="w8"), LayerPrecision(layers="a.*", precision="fp16")]
    precisions = Precisions(layers=layers)
    assert [precisions.of(layer).word for layer in ("a", "a.b", "b")] == ["w8", "fp16", "int8"]
    assert not matches("ab", "a")


def test_a_block_size_that_does_not_divide_says_what_to_do(blocky: Task) -> None:
    with pytest.raises(
        ContractError, match=r"Layer 'point' .* \[24, 16, 1, 1\]: block size 32 does not divide the input axis"
    ) as found:
        compress(blocky, "w4-g32")
    assert "keep_float = ['point']" in str(found.value)


def test_a_pattern_without_a_layer_names_the_nearest(blocky: Task) -> None:
    with pytest.raises(RecipeError, match=r"layers: no layer matches 'haed'\. Did you mean 'head'"):
        compress(blocky, "int8", layers=(LayerPrecision(layers="haed", precision="w8"),))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "int4", "activations": "int16"}, "no target has a kernel for int4 weights with int16"),
        ({"weights": "float16"}, "int8 activations need integer weights"),
        ({"block_size": 32}, "block_size is for weight-only recipes"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Precision.parse(fields, source="recipe")


def test_weights_beyond_float16_are_refused(blocky: Task, make_task: Callable[..., Task]) -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = 1e5
    with pytest.raises(ContractError, match="beyond float16's range"):
        compress(make_task(model, (1, 4)), "fp16")


def test_covering_scales_clip_nothing_and_use_the_far_end() -> None:
    rows = torch.tensor([[-8.0, 7.0], [7.0, 0.0], [0.0, 0.0]])
    scales = covering_scales(rows, minimum=-8, maximum=7)
    np.testing.assert_array_equal(scales[:2], [1.0, 1.0])
    assert scales[2] > 0


def test_fixed_ranges_have_power_of_two_scales_in_16_bits() -> None:
    assert wide_grid(-1.0, 0.9921875, is_fixed=True).scale == 2.0**-15
    assert wide_grid(-2.0, 1.0).scale == np.float32(2.0 / 32767)
