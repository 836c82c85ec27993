from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.contract import QuantizationContract, TensorQuantization
from edgekit.device_tests.parity import changed_decisions, decibels, layer_parity, output_parity, snr_db, spread


def entry(name: str, role: str = "activation") -> TensorQuantization:
    return TensorQuantization.model_validate(
        {
            "name": name,
            "role": role,
            "op": "conv2d",
            "shape": (1, 4),
            "dtype": "int8",
            "scale": (0.5,),
            "zero_point": (0,),
            "minimum": -128,
            "maximum": 127,
            "node": name,
        }
    )


def test_snr_is_the_ratio_of_energies_in_decibels() -> None:
    reference = np.ones(100)
    assert snr_db(reference + 0.1, reference) == pytest.approx(20.0)
    assert snr_db(reference, reference) is None
    assert snr_db(np.ones(3), np.zeros(3)) == -200.0
    assert decibels(1.0, 1e300) == -200.0


def test_snr_of_float16_values_does_not_overflow() -> None:
    reference = np.full(1000, 300.0, np.float16)
    assert snr_db(reference + np.float16(3), reference) == pytest.approx(40.0)


def test_output_parity_counts_steps_only_where_there_is_a_grid() -> None:
    reference = {"a": np.array([[0.0, 0.5, 1.0, 1.5]]), "b": np.array([[2.0]])}
    outputs = {"a": np.array([[0.0, 0.5, 1.5, 1.5]]), "b": np.array([[2.0]])}
    a, b = output_parity(outputs, reference, scales={"a": 0.25})
    assert (a.largest_steps, a.largest_difference, a.exact_share) == (2, 0.5, 0.75)
    assert (b.largest_steps, b.snr_db, b.exact_share) == (None, None, 1.0)


def test_layer_parity_is_a_histogram_of_steps() -> None:
    contract = QuantizationContract(entries=(entry("x", "input"), entry("conv"), entry("absent")))
    recorded = {"x": np.zeros((1, 4), np.int8), "conv": np.array([[127, -128, 0, 5]], np.int8)}
    replayed = {"x": np.ones((1, 4), np.int8), "conv": np.array([[-128, -128, 1, 7]], np.int8)}
    (layer,) = layer_parity(contract, recorded, replayed)
    assert layer.entry == "conv"
    assert layer.difference_counts == (1, 1, 1, 0, 0, 0, 0, 0, 1)
    assert (layer.exact_share, layer.within_one_share, layer.largest_steps, layer.value_count) == (0.25, 0.5, 255, 4)


def test_equal_layers_have_both_first_bins() -> None:
    contract = QuantizationContract(entries=(entry("conv"),))
    values = {"conv": np.zeros((2, 1, 4), np.int8)}
    (layer,) = layer_parity(contract, values, values)
    assert layer.difference_counts == (8, 0)
    assert layer.largest_steps == 0


def test_spread_looks_at_all_outputs_and_at_decisions() -> None:
    one = {"scores": np.array([[1.0, 0.0], [0.0, 1.0]]), "other": np.array([[3.0], [4.0]])}
    two = {"other": np.array([[3.0], [4.0]]), "scores": np.array([[1.0, 0.0], [1.0, 0.0]])}
    found = spread(("torch", one), ("onnx", two), predict=lambda outputs: np.argmax(outputs["scores"], -1))
    assert (found.first, found.second, found.sample_count) == ("torch", "onnx", 2)
    assert found.identical_share == pytest.approx(4 / 6)
    assert found.disagreement_share == 0.5
    assert found.snr_db == pytest.approx(10 * np.log10(27 / 2))


def test_spread_without_decisions_has_no_disagreement() -> None:
    values = {"y": np.ones((3, 2))}
    found = spread(("a", values), ("b", values))
    assert (found.snr_db, found.disagreement_share, found.identical_share) == (None, None, 1.0)


def test_a_sample_with_many_decisions_changes_when_one_does() -> None:
    one, two = {"y": np.zeros((2, 3), int)}, {"y": np.array([[0, 0, 0], [0, 1, 0]])}
    assert list(changed_decisions(one, two, lambda outputs: outputs["y"])) == [False, True]
