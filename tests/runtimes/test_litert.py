"""The LiteRT runtime: loading, running, replaying layers, and files it must refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.converters.tflite import CONVERTER
from edgekit.converters.tflite_flatbuffer import Graph
from edgekit.converters.tflite_values import program_integers
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.contract import ContractReport
from edgekit.core.errors import ContractError, DataError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.task import Task
from edgekit.runtimes.litert import RUNTIME


class Net(nn.Module):
    """Convolution, residual and head: an activation read twice, one read once, one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(signal))
        return self.head((x + self.inner(x)).mean(-1))


@pytest.fixture(scope="module")
def compressed() -> Compressed:
    torch.manual_seed(0)
    signals = np.random.default_rng(0).standard_normal((8, 3, 20), np.float32)
    return pipeline.compress(Task(name="net", model=Net(), example_inputs=signals[:1], calibration=[signals]), recipe="int8")


@pytest.fixture(scope="module")
def artifact(compressed: Compressed, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return CONVERTER.convert(compressed, output=tmp_path_factory.mktemp("litert"), options=ExportOptions())


@pytest.fixture(scope="module")
def recorded(compressed: Compressed) -> dict[str, np.ndarray]:
    return {name: values[None] for name, values in program_integers(compressed).items()}


@pytest.fixture
def signal(compressed: Compressed) -> np.ndarray:
    return compressed.golden.inputs["signal"][0]


class TestSession:
    def test_answers_by_name(self, artifact: Artifact, compressed: Compressed, signal: np.ndarray) -> None:
        session = RUNTIME.load(artifact.path, threads=2)
        assert (session.inputs, session.outputs) == (compressed.record.inputs, compressed.record.outputs)
        found = session.run({"signal": signal})
        np.testing.assert_allclose(found["output"], compressed.golden.outputs["output"][0], atol=2 * step_of(compressed))

    def test_answers_are_the_callers_own(self, artifact: Artifact, signal: np.ndarray) -> None:
        session = RUNTIME.load(artifact.path)
        first = session.run({"signal": signal})["output"]
        kept = first.copy()
        session.run({"signal": -signal})
        np.testing.assert_array_equal(first, kept)

    @pytest.mark.parametrize("provider", ["builtin", "reference"])
    def test_other_kernels_are_near(self, artifact: Artifact, compressed: Compressed, signal: np.ndarray, provider: str) -> None:
        shipped = RUNTIME.load(artifact.path).run({"signal": signal})["output"]
        other = RUNTIME.load(artifact.path, options={"provider": provider}).run({"signal": signal})["output"]
        np.testing.assert_allclose(other, shipped, atol=3 * step_of(compressed))

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"providers": "builtin"}, "no option 'providers'.*Did you mean 'provider'"),
            ({"provider": "xnnpak"}, "Did you mean 'xnnpack'"),
        ],
    )
    def test_unknown_options_are_refused(self, artifact: Artifact, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(UsageError, match=complaint):
            RUNTIME.load(artifact.path, options=options)

    @pytest.mark.parametrize(
        ("inputs", "complaint"),
        [
            ({"signals": np.zeros((1, 3, 20), np.float32)}, "Did you mean 'signal'"),
            ({}, "is missing"),
            ({"signal": np.zeros((1, 20, 3), np.float32)}, r"expects float32 \[1, 3, 20\]"),
            ({"signal": np.zeros((1, 3, 20), np.int8)}, "is int8"),
        ],
    )
    def test_wrong_inputs_are_refused(self, artifact: Artifact, inputs: dict[str, np.ndarray], complaint: str) -> None:
        with pytest.raises(DataError, match=complaint):
            RUNTIME.load(artifact.path).run(inputs)

    def test_closed_session_says_so(self, artifact: Artifact, signal: np.ndarray) -> None:
        session = RUNTIME.load(artifact.path)
        session.close()
        with pytest.raises(DataError, match="closed"):
            session.run({"signal": signal})

    def test_loading_is_quiet(self, artifact: Artifact, capfd: pytest.CaptureFixture[str]) -> None:
        RUNTIME.load(artifact.path)
        assert capfd.readouterr() == ("", "")

    def test_needs_neither_torch_nor_tensorflow(self, artifact: Artifact) -> None:
        code = (
            "import pathlib, sys; sys.modules.update(dict.fromkeys(('torch', 'tensorflow', 'jax', 'litert_torch')));"
            "import numpy as np; from edgekit.runtimes.litert import RUNTIME;"
            "session = RUNTIME.load(pathlib.Path(sys.argv[1])); spec = session.inputs[0];"
            "print(session.run({spec.name: np.zeros(spec.shape, np.float32)})['output'].shape)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(artifact.path)], capture_output=True, text=True, check=True)
        assert done.stdout == "(1, 4)\n"


def step_of(compressed: Compressed) -> float:
    return compressed.contract["head"].scale[0] * 1.01


class TestDamage:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match=r"model.tflite cannot be read: No such file"):
            RUNTIME.load(tmp_path / "model.tflite")

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip archive", b"\x00" * 64])
    def test_another_format(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "model.tflite").write_bytes(data)
        with pytest.raises(IntegrityError, match=r"not a TFLite model: bytes 4 to 8 .* expected b'TFL3'"):
            RUNTIME.load(tmp_path / "model.tflite")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_truncated_file(self, artifact: Artifact, tmp_path: Path, share: float) -> None:
        data = artifact.path.read_bytes()
        (tmp_path / "cut.tflite").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(IntegrityError, match=r"cut.tflite is not a model LiteRT [\d.]+ can load"):
            RUNTIME.load(tmp_path / "cut.tflite")

    def test_operator_without_a_kernel(self, artifact: Artifact, tmp_path: Path) -> None:
        graph = Graph(artifact.path.read_bytes())
        code = graph.model.operatorCodes[graph.operators[-2].opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, "Mystery"  # schema.fbs: CUSTOM
        (tmp_path / "custom.tflite").write_bytes(graph.to_bytes())
        with pytest.raises(UnsupportedOpError, match=r"no kernel for an operator of this model: .*Mystery"):
            RUNTIME.load(tmp_path / "custom.tflite")

    def test_replay_refuses_a_damaged_file(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        (tmp_path / "cut.tflite").write_bytes(artifact.path.read_bytes()[:2000])
        with pytest.raises(IntegrityError, match=r"cut.tflite"):
            RUNTIME.replay_layers(artifact.replace(path=tmp_path / "cut.tflite"), compressed.contract, recorded)


class TestReplay:
    def test_layers_answer_exactly(self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        found = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
        assert list(found) == ["stem", "inner", "add", "mean", "head"]
        for name, values in found.items():
            assert (values.shape, values.dtype) == (recorded[name].shape, np.int8)
            assert np.abs(values.astype(int) - recorded[name].astype(int)).max() <= 1
        np.testing.assert_array_equal(found["stem"], recorded["stem"])

    def test_layers_are_independent(self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        usual = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
        for name, readers in {"signal": {"stem"}, "stem": {"inner", "add"}, "add": {"mean"}, "head": set()}.items():
            other = RUNTIME.replay_layers(artifact, compressed.contract, {**recorded, name: recorded[name] // 2})
            assert {entry for entry in usual if not np.array_equal(usual[entry], other[entry])} == readers

    def test_several_samples_at_once(self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        both = {name: np.concatenate([values, values // 2]) for name, values in recorded.items()}
        found = RUNTIME.replay_layers(artifact, compressed.contract, both, threads=2)
        halves = RUNTIME.replay_layers(artifact, compressed.contract, {name: values // 2 for name, values in recorded.items()})
        for name, values in RUNTIME.replay_layers(artifact, compressed.contract, recorded).items():
            np.testing.assert_array_equal(found[name], np.concatenate([values, halves[name]]))

    def test_folded_entries_are_spanned(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]
    ) -> None:
        kept = ContractReport(outcomes=tuple(found for found in artifact.contract_report.outcomes if found.name != "inner"))
        found = RUNTIME.replay_layers(artifact.replace(contract_report=kept), compressed.contract, recorded)
        assert list(found) == ["stem", "add", "mean", "head"]
        assert np.abs(found["add"].astype(int) - recorded["add"].astype(int)).max() <= 1

    def test_layers_fed_by_an_unknown_input_are_left_out(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]
    ) -> None:
        kept = ContractReport(outcomes=tuple(found for found in artifact.contract_report.outcomes if found.name != "signal"))
        found = RUNTIME.replay_layers(artifact.replace(contract_report=kept), compressed.contract, recorded)
        assert list(found) == ["inner", "add", "mean", "head"]

    def test_report_of_another_file_is_noticed(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]
    ) -> None:
        wrong = ContractReport(
            outcomes=tuple(found.replace(tensor=f"{found.tensor}?") for found in artifact.contract_report.outcomes)
        )
        with pytest.raises(ContractError, match=r"no tensor 'signal/int8\?', which its report names for 'signal'"):
            RUNTIME.replay_layers(artifact.replace(contract_report=wrong), compressed.contract, recorded)

    def test_missing_recording_is_named(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]
    ) -> None:
        with pytest.raises(DataError, match="lack entry 'inner'"):
            RUNTIME.replay_layers(artifact, compressed.contract, {k: v for k, v in recorded.items() if k != "inner"})
