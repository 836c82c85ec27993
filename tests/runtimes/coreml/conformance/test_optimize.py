"""Packages that ``coremltools.optimize.coreml`` compressed: the stored weights, bit for bit as coremltools decodes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coreml_cases import ct, mb, quiet_coremltools

from edgekit.runtimes.coreml.decoded import decoded_weights
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME

with quiet_coremltools():
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil.frontend.milproto import load as milproto

DRAW = np.random.default_rng(0)
CONV, LINEAR = (DRAW.standard_normal(shape).astype(np.float32) for shape in ((16, 8, 3, 3), (12, 32)))
FEED = DRAW.standard_normal((1, 8, 6, 6)).astype(np.float32)
LEAST = 64


def linear(**choices: Any) -> Any:
    return lambda model: cto.linear_quantize_weights(
        model, config=whole(cto.OpLinearQuantizerConfig(weight_threshold=LEAST, **choices))
    )


def palette(**choices: Any) -> Any:
    return lambda model: cto.palettize_weights(model, config=whole(cto.OpPalettizerConfig(weight_threshold=LEAST, **choices)))


def pruned(**choices: Any) -> Any:
    return lambda model: cto.prune_weights(model, config=whole(cto.OpMagnitudePrunerConfig(weight_threshold=LEAST, **choices)))


def whole(config: Any) -> Any:
    return cto.OptimizationConfig(global_config=config)


def sparse_integers(model: Any) -> Any:
    config = whole(cto.OpLinearQuantizerConfig(weight_threshold=LEAST))
    return cto.linear_quantize_weights(pruned(target_sparsity=0.5)(model), config=config, joint_compression=True)


def sparse_palette(model: Any) -> Any:
    config = whole(cto.OpPalettizerConfig(weight_threshold=LEAST, mode="uniform", nbits=4))
    return cto.palettize_weights(pruned(target_sparsity=0.5)(model), config=config, joint_compression=True)


def integer_palette(model: Any) -> Any:
    config = whole(cto.OpLinearQuantizerConfig(weight_threshold=LEAST, granularity="per_tensor"))
    return cto.linear_quantize_weights(palette(mode="uniform", nbits=4)(model), config=config, joint_compression=True)


FORMS: dict[str, tuple[str, Any, set[str]]] = {
    "int8-channel": ("iOS16", linear(mode="linear_symmetric"), {"constexpr_affine_dequantize"}),
    "int8-affine": ("iOS16", linear(mode="linear"), {"constexpr_affine_dequantize"}),
    "uint8": ("iOS16", linear(mode="linear", dtype="uint8"), {"constexpr_affine_dequantize"}),
    "int8-tensor": ("iOS18", linear(granularity="per_tensor"), {"constexpr_blockwise_shift_scale"}),
    "int4-channel": ("iOS18", linear(dtype="int4"), {"constexpr_blockwise_shift_scale"}),
    "int4-block": ("iOS18", linear(dtype="int4", granularity="per_block", block_size=4), {"constexpr_blockwise_shift_scale"}),
    "uint4-block": (
        "iOS18",
        linear(dtype="uint4", mode="linear", granularity="per_block", block_size=8),
        {"constexpr_blockwise_shift_scale"},
    ),
    **{f"palette-{bits}": ("iOS16", palette(mode="uniform", nbits=bits), {"constexpr_lut_to_dense"}) for bits in (1, 2, 4, 6, 8)},
    "palette-3": ("iOS18", palette(mode="uniform", nbits=3), {"constexpr_lut_to_dense"}),
    "palette-group": (
        "iOS18",
        palette(mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=4),
        {"constexpr_lut_to_dense"},
    ),
    "palette-kmeans": ("iOS16", palette(mode="kmeans", nbits=4), {"constexpr_lut_to_dense"}),
    "palette-scale": (
        "iOS18",
        palette(mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=4, enable_per_channel_scale=True),
        {"constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"},
    ),
    "palette-vector": ("iOS18", palette(mode="kmeans", nbits=4, cluster_dim=2), {"constexpr_lut_to_dense"}),
    "sparse-16": ("iOS16", pruned(target_sparsity=0.7), {"constexpr_sparse_to_dense"}),
    "sparse-18": ("iOS18", pruned(target_sparsity=0.7), {"constexpr_sparse_to_dense"}),
    "sparse-integers": ("iOS18", sparse_integers, {"constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"}),
    "sparse-palette": ("iOS18", sparse_palette, {"constexpr_lut_to_sparse", "constexpr_sparse_to_dense"}),
    "integer-palette": ("iOS18", integer_palette, {"constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"}),
}
"""Form -> the version it needs, how it is made, and the operations it is stored with."""


@pytest.fixture(scope="module")
def originals() -> dict[tuple[str, str], Any]:
    """A net of a convolution and a linear layer, as a package in memory, by version and precision."""

    def build(target: str, precision: str) -> Any:
        @mb.program(input_specs=[mb.TensorSpec(shape=FEED.shape)], opset_version=getattr(ct.target, target))
        def net(x):
            x = mb.relu(x=mb.conv(x=x, weight=CONV, name="conv"))
            return mb.linear(x=mb.reshape(x=x, shape=[8, 32]), weight=LINEAR, name="linear")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ct.convert(
                net, minimum_deployment_target=getattr(ct.target, target), compute_precision=getattr(ct.precision, precision),
                skip_model_load=True,
            )  # fmt: skip

    return {
        (target, precision): build(target, precision) for target in ("iOS16", "iOS18") for precision in ("FLOAT16", "FLOAT32")
    }


@pytest.fixture
def saved(tmp_path: Path, originals: dict[tuple[str, str], Any]) -> Iterator[Any]:
    def save(form: str, precision: str) -> Path:
        target, compress, _ = FORMS[form]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = compress(originals[target, precision])
            made.save(str(tmp_path / f"{form}.mlpackage"))
        return tmp_path / f"{form}.mlpackage"

    return save


def their_decoding(path: Path) -> dict[str, np.ndarray]:
    """Every decoded weight that a layer reads, by name: coremltools reads its own package and decodes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.models.MLModel(str(path), skip_model_load=True)
        program = milproto.load(model.get_spec(), model.get_spec().specificationVersion, model.weights_dir)
    found = {}
    for operation in program.functions["main"].operations:
        if operation.op_type in {"conv", "linear"}:
            found[operation.weight.name] = their_value(operation.weight.op)
    return found


def their_value(operation: Any) -> np.ndarray:
    """What coremltools decodes; its own road through a palette that is decoded itself ends in an error."""
    if operation.op_type == "const":
        return operation.outputs[0].val
    if operation.op_type == "constexpr_lut_to_dense" and operation.opset_version == ct.target.iOS18 and operation.lut.val is None:
        axis = None if operation.vector_axis is None else operation.vector_axis.val
        return operation.decompress(operation.indices.val, their_value(operation.lut.op), axis)
    return operation.materialized_val_inference()


@pytest.mark.parametrize("precision", ["FLOAT16", pytest.param("FLOAT32", marks=pytest.mark.proof)])
@pytest.mark.parametrize("form", FORMS)
def test_stored_weights_are_decoded_bit_for_bit(form: str, precision: str, saved: Any) -> None:
    path = saved(form, precision)
    kinds = {operation.type for operation in read_package(path).operations}
    assert {kind for kind in kinds if kind.startswith("constexpr_")} == FORMS[form][2]
    ours, theirs = decoded_weights(path), their_decoding(path)
    assert len(theirs) == 2
    for name, weight in theirs.items():
        np.testing.assert_array_equal(ours[name], weight.astype(np.float32), err_msg=name)
    conv, matrix = theirs.values()
    answer = next(iter(RUNTIME.load(path).run({"x": FEED}).values()))
    assert answer.shape == (8, 12)
    for weight, source in ((conv, CONV), (matrix, LINEAR)):
        assert weight.shape == source.shape
        assert not np.array_equal(weight, source)  # something was compressed


def test_wrong_weights_are_shown_as_they_are_stored(tmp_path: Path) -> None:
    """coremltools#2777: 120 channels make no groups of 16, so nothing is a palette, but the weights are divided by scales."""
    weight = DRAW.standard_normal((120, 128)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 128))], opset_version=ct.target.iOS18)
    def net(x):
        return mb.linear(x=x, weight=weight, name="linear")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            net, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32, skip_model_load=True
        )
        choices = {"granularity": "per_grouped_channel", "group_size": 16, "enable_per_channel_scale": True}
        made = palette(mode="kmeans", nbits=4, **choices)(model)
    path = tmp_path / "faulty.mlpackage"
    made.save(str(path))
    (theirs,) = their_decoding(path).values()
    (ours,) = (found for found in decoded_weights(path).values() if found.shape == weight.shape)
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours - weight).max() > 1
