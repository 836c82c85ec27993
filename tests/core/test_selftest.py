"""The record of a golden self-test: raw files, and what passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import IntegrityError
from edgekit.core.selftest import CheckedOutput, SelfTest, check_answers, differences, write_selftest
from edgekit.core.tensors import TensorSpec

INPUTS = (TensorSpec(name="a/b", shape=(2, 2), dtype="int16"),)
OUTPUTS = (TensorSpec(name="score", shape=(3,), dtype="float32"),)


@pytest.fixture
def record(tmp_path: Path) -> SelfTest:
    cases = [
        ({"a/b": np.full((2, 2), 258 + number, np.int16)}, {"score": np.array([1, 2, 3 + number], np.float32)})
        for number in range(2)
    ]
    inputs, outputs = write_selftest(tmp_path, cases, specs=(INPUTS, OUTPUTS))
    checked = tuple(CheckedOutput(**dict(one), tolerance=0.1, rms_tolerance=0.05) for one in outputs)
    made = SelfTest(model="../model.onnx", model_sha256="", because="made up", inputs=inputs, outputs=checked)
    made.write_json(tmp_path / "selftest.json")
    return made


def test_files_are_raw_little_endian_and_come_back(record: SelfTest, tmp_path: Path) -> None:
    assert (tmp_path / "0.input.a_b.bin").read_bytes() == bytes([2, 1] * 4)
    read = SelfTest.load(tmp_path)
    assert read == record
    assert read.case_count == 2
    np.testing.assert_array_equal(read.inputs_of(1, folder=tmp_path)["a/b"], np.full((2, 2), 259, np.int16))
    assert read.outputs_of(1, folder=tmp_path)["score"].tolist() == [1, 2, 4]


@pytest.mark.parametrize("name", ["0.input.a_b.bin", "1.output.score.bin"])
def test_a_file_that_is_missing_or_cut_is_noticed(record: SelfTest, tmp_path: Path, name: str) -> None:
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match=f"{name} has {len(data) - 1} bytes, but .* has {len(data)}"):
        SelfTest.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        SelfTest.load(tmp_path)


@pytest.mark.parametrize("shape", [[2**62, 4], [10**30], [1] * 164 + [4], [-2, -2], [-4]])
def test_shapes_no_array_can_have_are_damage(record: SelfTest, tmp_path: Path, shape: list[int]) -> None:
    kept = json.loads((tmp_path / "selftest.json").read_text())
    kept["inputs"][0]["shape"] = shape
    (tmp_path / "selftest.json").write_text(json.dumps(kept))
    assert record.inputs
    with pytest.raises(IntegrityError):
        SelfTest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ([0, 0, 0], True),
        ([0.09, 0, 0], False),  # within the largest difference, beyond the root mean square of 0.05
        ([0.06, 0.03, 0], True),
        ([0.2, 0, 0], False),
        ([np.nan, 0, 0], False),
        ([np.inf, 0, 0], False),
    ],
)
def test_both_limits_hold(record: SelfTest, tmp_path: Path, change: list[float], passes: bool) -> None:
    answers = [
        {name: values + np.array(change, np.float32) for name, values in record.outputs_of(case, folder=tmp_path).items()}
        for case in range(2)
    ]
    [check] = check_answers(record, answers, folder=tmp_path)
    assert check.passed is passes


def test_differences_of_what_is_not_finite() -> None:
    odd = np.array([np.nan, np.inf, 1])
    assert differences(odd, odd) == (0, 0)
    assert differences(odd, np.array([np.nan, -np.inf, 1])) == (None, None)
    assert differences(np.zeros(2), np.zeros(3)) == (None, None)
    assert differences(np.zeros(0), np.zeros(0)) == (0, 0)
