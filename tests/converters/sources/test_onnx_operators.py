"""Single operators against ONNX's own test cases: every operator at least once, and the forms that are easily got wrong."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "benchmarks" / "lab" / "onnx_cases.py"

FORMS = {
    "test_averagepool_2d_ceil", "test_averagepool_2d_ceil_last_window_starts_on_pad", "test_averagepool_2d_same_upper",
    "test_averagepool_2d_same_lower", "test_averagepool_2d_dilations", "test_averagepool_2d_pads_count_include_pad",
    "test_maxpool_2d_same_lower", "test_maxpool_2d_ceil", "test_maxpool_2d_dilations", "test_maxpool_2d_uint8",
    "test_maxpool_with_argmax_2d_precomputed_strides", "test_maxpool_with_argmax_2d_precomputed_pads",
    "test_conv_with_autopad_same", "test_conv_with_strides_and_asymmetric_padding", "test_convtranspose_autopad_same",
    "test_convtranspose_kernel_shape", "test_convtranspose_output_shape", "test_convtranspose_pads",
    "test_convtranspose_dilations", "test_convtranspose_group_2", "test_resize_upsample_scales_nearest",
    "test_resize_upsample_scales_linear_align_corners", "test_resize_upsample_scales_cubic",
    "test_resize_downsample_sizes_linear_antialias", "test_resize_tf_crop_and_resize",
    "test_resize_upsample_sizes_nearest_ceil_half_pixel", "test_resize_upsample_sizes_nearest_floor_align_corners",
    "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside", "test_resize_downsample_scales_linear_half_pixel_symmetric",
    "test_resize_upsample_scales_nearest_axes_2_3", "test_resize_downsample_sizes_nearest_not_larger",
    "test_lstm_with_peepholes", "test_lstm_with_initial_bias", "test_lstm_batchwise", "test_gru_with_initial_bias",
    "test_gru_seq_length", "test_rnn_seq_length", "test_simple_rnn_batchwise", "test_edge_pad", "test_reflect_pad",
    "test_wrap_pad", "test_constant_pad_negative_axes", "test_gather_negative_indices",
    "test_gathernd_example_int32_batch_dim1", "test_scatter_elements_with_duplicate_indices", "test_scatternd_multiply",
    "test_slice_negative_axes", "test_slice_neg_steps", "test_slice_end_out_of_bounds",
    "test_split_variable_parts_2d_opset18", "test_softmax_axis_0", "test_reduce_sum_negative_axes_keepdims_random",
    "test_reduce_l2_keep_dims_random", "test_cumsum_2d_axis_1", "test_cumsum_1d_reverse_exclusive",
    "test_argmax_keepdims_example_select_last_index", "test_onehot_negative_indices", "test_einsum_batch_diagonal",
    "test_mod_mixed_sign_int64", "test_pow_types_float32_int64", "test_quantizelinear_axis",
    "test_quantizelinear_blocked_asymmetric", "test_dequantizelinear_blocked", "test_qlinearmatmul_3D_uint8_float32",
    "test_dynamicquantizelinear_max_adjusted", "test_convinteger_with_padding", "test_stft_with_window", "test_dft_inverse",
    "test_dft_irfft", "test_loop11", "test_scan9_sum", "test_if", "test_layer_normalization_3d_axis_negative_2_epsilon",
    "test_group_normalization_epsilon", "test_attention_4d_gqa_causal", "test_attention_3d_with_past_and_present",
    "test_rotary_embedding_interleaved", "test_center_crop_pad_crop_and_pad", "test_gridsample_reflection_padding",
    "test_reversesequence_time", "test_unique_sorted_with_negative_axis", "test_squeeze_negative_axes",
    "test_depthtospace_crd_mode_example", "test_tensorscatter_circular", "test_maxunpool_export_with_output_shape",
    "test_prelu_broadcast",
}  # fmt: skip


def load() -> ModuleType:
    """The benchmark's own reader of the cases."""
    spec = importlib.util.spec_from_file_location("onnx_cases", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["onnx_cases"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[Any, ...]]:
    """Case name -> its cases (some have several sets of data)."""
    module = load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        made: dict[str, tuple[Any, ...]] = {}
        for case in module.cases():
            made[case.name] = (*made.get(case.name, ()), case)
    return made


def test_forms_that_are_easily_got_wrong(found: dict[str, tuple[Any, ...]]) -> None:
    module = load()
    missing = FORMS - set(found)
    assert missing == set()
    outcomes = [module.check(case) for name in sorted(FORMS) for case in found[name]]
    wrong = {outcome.name: f"{outcome.why}: {outcome.details}" for outcome in outcomes if not outcome.passed}
    assert wrong == {}


def test_every_known_operator_has_a_case_that_passes(found: dict[str, tuple[Any, ...]]) -> None:
    from edgekit.converters.sources.onnx import operators

    module = load()
    operators.load()
    wanted = {name for domain, name in operators.known() if not domain}
    wanted -= {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}  # refused
    left = set(wanted)
    for name in sorted(found, key=lambda name: (len(name), name)):
        case = found[name][0]
        here = {node.op_type for node in case.model.graph.node} & left
        if here and len(case.model.graph.node) <= 3 and module.check(case).passed:
            left -= here
    assert left <= {"ConcatFromSequence", "Dropout", "GlobalLpPool", "LpNormalization", "Scatter", "Upsample"}, left
    assert len(wanted) > 150


def test_a_wrong_answer_is_seen(found: dict[str, tuple[Any, ...]]) -> None:
    import dataclasses

    module = load()
    case = found["test_add"][0]
    wrong = dataclasses.replace(case, outputs=[case.outputs[0] + 1])
    assert module.check(case).passed
    assert not module.check(wrong).passed
