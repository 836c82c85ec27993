from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.artifact import Artifact
from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
from edgekit.core.errors import DataError, IntegrityError, OutputError, UsageError
from edgekit.core.files import sha256
from edgekit.core.measurement import Distribution
from edgekit.core.run import Manifest, RunFolder, now
from edgekit.core.tensors import TensorSpec, check_inputs, dequantize, quantize
from edgekit.core.verdict import Decision, Gate, Outcome, Verdict


def entry(name: str, scale: float = 0.1) -> TensorQuantization:
    return TensorQuantization(
        name=name,
        role="activation",
        op="conv",
        shape=(1, 2),
        dtype="int8",
        scale=(scale,),
        zero_point=(3,),
        minimum=-128,
        maximum=127,
        node="q",
    )


@given(st.floats(2.0**-20, 1024, width=32), st.integers(-128, 127))
def test_contract_numbers_survive_json(scale: float, zero_point: int) -> None:
    contract = QuantizationContract(entries=(entry("a", scale).replace(zero_point=(zero_point,)),))
    again = QuantizationContract.model_validate_json(contract.to_json())
    assert again == contract
    assert np.float32(again["a"].scale[0]) == np.float32(scale)


def test_contract_lookup() -> None:
    contract = QuantizationContract(entries=(entry("a"), entry("b")))
    assert contract["b"].name == "b"
    with pytest.raises(KeyError):
        contract["c"]


def test_report_counts() -> None:
    report = ContractReport(
        outcomes=(EntryOutcome(name="a", outcome="honoured", tensor="t"), EntryOutcome(name="b", outcome="folded"))
    )
    assert report.counts == {"honoured": 1, "folded": 1}
    assert list(report.tensors) == ["a"]


@given(
    st.floats(2.0**-10, 10, width=32), st.integers(-128, 127), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20)
)
def test_quantize_is_within_half_a_step_or_saturates(scale: float, zero_point: int, values: list[float]) -> None:
    array = np.array(values, np.float32)
    integers = quantize(array, scale=scale, zero_point=zero_point)
    restored = dequantize(integers, scale=scale, zero_point=zero_point)
    inside = (integers > -128) & (integers < 127)
    assert np.all(np.abs(restored - array)[inside] <= scale * 0.501)


def test_inputs_are_checked_by_name_shape_and_dtype() -> None:
    specs = (TensorSpec(name="image", shape=(1, 3), dtype="float32"),)
    check_inputs({"image": np.zeros((1, 3), np.float32)}, specs)
    with pytest.raises(DataError, match="Did you mean 'image'"):
        check_inputs({"imge": np.zeros((1, 3), np.float32)}, specs)
    with pytest.raises(DataError, match="is missing"):
        check_inputs({}, specs)
    with pytest.raises(DataError, match=r"float64 \[1, 3\]"):
        check_inputs({"image": np.zeros((1, 3))}, specs)


def test_distribution_interval_holds_the_median() -> None:
    found = Distribution.of(list(range(1, 101)))
    assert found.p50 == 50.5
    assert found.p50_interval[0] <= found.p50 <= found.p50_interval[1]
    assert len(Distribution.of(list(range(10_000)), kept=100).samples) == 100
    with pytest.raises(ValueError, match="at least one"):
        Distribution.of([])


@pytest.mark.parametrize(
    ("outcomes", "decision"),
    [
        ([], Decision.INCONCLUSIVE),
        ([Outcome.PASS], Decision.SHIP),
        ([Outcome.PASS, Outcome.INCONCLUSIVE], Decision.INCONCLUSIVE),
        ([Outcome.INCONCLUSIVE, Outcome.FAIL], Decision.BLOCK),
    ],
)
def test_verdict(outcomes: list[Outcome], decision: Decision) -> None:
    gates = [Gate(name="g", target="onnx", found="1", limit="2", outcome=outcome) for outcome in outcomes]
    assert Verdict.from_gates(gates).decision is decision


def test_artifact_knows_when_it_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"abc")
    artifact = Artifact(target="onnx", path=file, sha256=sha256(file), size_bytes=3, precision="int8", inputs=(), outputs=())
    artifact.save(tmp_path)
    assert Artifact.load(tmp_path) == artifact
    file.write_bytes(b"abd")
    with pytest.raises(IntegrityError, match="was changed or damaged"):
        Artifact.load(tmp_path)
    file.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        Artifact.load(tmp_path)


def test_artifacts_of_one_target_are_told_apart_by_their_role(tmp_path: Path) -> None:
    made = Artifact(target="onnx", path=tmp_path, sha256="", size_bytes=3, precision="float32", inputs=(), outputs=())
    assert (made.is_baseline, made.label) == (True, "onnx-float32")
    pruned = made.replace(is_baseline=False)
    assert (pruned.label, Artifact.parse(pruned.model_dump(mode="json"), source="test")) == ("onnx", pruned)
    assert pruned.replace(variant="prune50").label == "onnx-prune50"
    old = {name: value for name, value in made.model_dump(mode="json").items() if name not in {"is_baseline", "variant"}}
    assert Artifact.parse(old, source="a run of an earlier version") == made


def test_run_folder_guards_what_is_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.check_free(force=False)
    with pytest.raises(UsageError, match="does not exist"):
        run.manifest()
    run.path.mkdir()
    run.check_free(force=False)
    with pytest.raises(UsageError, match="not a run folder"):
        run.manifest()
    (run.path / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="--force"):
        run.check_free(force=False)
    with pytest.raises(OutputError, match="not a run folder"):
        run.check_free(force=True)
    Manifest(name="n", recipe="int8", created=now()).write_json(run.manifest_path)
    run.check_free(force=True)
    run.record_stage("compress", digest="abc")
    run.record_stage("compress", digest="abd")
    assert [(stage.stage, stage.sha256) for stage in run.manifest().stages] == [("compress", "abd")]


def test_damaged_manifest_is_an_integrity_error(tmp_path: Path) -> None:
    (tmp_path / "edgekit.json").write_text("{")
    with pytest.raises(IntegrityError, match="not JSON"):
        RunFolder(tmp_path).manifest()
    (tmp_path / "edgekit.json").write_text('{"name": "x"}')
    with pytest.raises(IntegrityError, match="recipe"):
        RunFolder(tmp_path).manifest()
