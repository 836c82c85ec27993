"""The compressed program in torch: its edges, its recorded integers, its layers computed again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import DataError, IntegrityError, UsageError
from edgekit.core.files import sha256
from edgekit.core.task import Task
from edgekit.core.tensors import dequantize, quantize
from edgekit.runtimes.torch import RUNTIME, record_layers


class Net(nn.Module):
    """Two outputs, a skip, and a reshape that shares a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv1d(3, 6, 3, padding=1), nn.Conv1d(6, 6, 1), nn.Linear(48, 4)

    def forward(self, signal: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.first(signal))
        y = x + self.second(x)
        return {"logits": self.head(y.flatten(1)), "mean": y.mean(-1)}


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    torch.manual_seed(0)
    signals = np.random.default_rng(0).standard_normal((8, 3, 8), np.float32)
    state = pipeline.compress(Task(name="net", model=Net(), example_inputs={"signal": signals[:1]}, calibration=[signals]))
    return state.save(tmp_path_factory.mktemp("net") / "compressed")


@pytest.fixture(scope="module")
def program(compressed: Compressed) -> Path:
    assert compressed.folder is not None
    return compressed.folder / "program.pt2"


@pytest.fixture(scope="module")
def recorded(compressed: Compressed, program: Path) -> dict[str, np.ndarray]:
    return record_layers(program, compressed.contract, dict(compressed.golden.inputs))


def as_artifact(program: Path, compressed: Compressed) -> Artifact:
    return Artifact(
        target="torch",
        path=program,
        sha256=sha256(program),
        size_bytes=program.stat().st_size,
        precision="int8",
        inputs=compressed.record.inputs,
        outputs=compressed.record.outputs,
    )


class TestSession:
    def test_answers_are_the_golden_ones(self, compressed: Compressed, program: Path) -> None:
        session = RUNTIME.load(program)
        assert (session.inputs, session.outputs) == (compressed.record.inputs, compressed.record.outputs)
        for i, signal in enumerate(compressed.golden.inputs["signal"]):
            found = session.run({"signal": signal})
            assert list(found) == ["logits", "mean"]
            for name, values in found.items():
                np.testing.assert_array_equal(values, compressed.golden.outputs[name][i])

    def test_float_program(self, compressed: Compressed, program: Path) -> None:
        session, state = RUNTIME.load(program.with_name("float.pt2")), compressed.as_float()
        found = session.run({"signal": state.golden.inputs["signal"][0]})
        np.testing.assert_allclose(found["mean"], state.golden.outputs["mean"][0], atol=1e-6)

    def test_lone_file_is_named_by_its_graph(self, program: Path, tmp_path: Path) -> None:
        lone = shutil.copy(program, tmp_path / "program.pt2")
        session = RUNTIME.load(Path(lone))
        assert [(spec.shape, spec.dtype) for spec in session.inputs] == [((1, 3, 8), "float32")]
        assert [(spec.name, spec.shape) for spec in session.outputs] == [("output_0", (1, 4)), ("output_1", (1, 6))]

    def test_read_only_inputs_are_taken(self, compressed: Compressed, program: Path) -> None:
        signal = compressed.golden.inputs["signal"][0].copy()
        signal.setflags(write=False)
        assert RUNTIME.load(program).run({"signal": signal})["mean"].shape == (1, 6)

    def test_refusals(self, program: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="has no option 'kernels'"):
            RUNTIME.load(program, options={"kernels": "any"})
        with pytest.raises(IntegrityError, match="does not exist"):
            RUNTIME.load(tmp_path / "gone.pt2")
        (tmp_path / "bad.pt2").write_bytes(b"this is no program")
        with pytest.raises(IntegrityError, match=r"bad\.pt2 is not a program"):
            RUNTIME.load(tmp_path / "bad.pt2")
        session = RUNTIME.load(program)
        session.close()
        with pytest.raises(DataError, match="closed"):
            session.run({"signal": np.zeros((1, 3, 8), np.float32)})


class TestRecord:
    def test_every_activation_on_the_contracts_grid(self, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        count = len(compressed.golden.inputs["signal"])
        for entry in compressed.contract.activations:
            assert recorded[entry.name].dtype == np.int8
            assert recorded[entry.name].shape == (count, *entry.shape)

    def test_first_and_last_are_the_programs_own(self, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        first, head = compressed.contract.activations[0], compressed.contract["head"]
        assert first.role == "input"
        expected = quantize(compressed.golden.inputs["signal"], scale=first.scale[0], zero_point=first.zero_point[0])
        np.testing.assert_array_equal(recorded[first.name], expected)
        real = dequantize(recorded["head"], scale=head.scale[0], zero_point=head.zero_point[0])
        np.testing.assert_array_equal(real, compressed.golden.outputs["logits"])

    def test_another_contract_is_noticed(self, compressed: Compressed, program: Path) -> None:
        entries = [entry.replace(node="elsewhere") if entry.name == "head" else entry for entry in compressed.contract.entries]
        other = compressed.contract.replace(entries=tuple(entries))
        with pytest.raises(IntegrityError, match=r"no node for the contract entries \['head'\]"):
            record_layers(program, other, dict(compressed.golden.inputs))


class TestReplay:
    def test_program_repeats_itself_exactly(self, compressed: Compressed, program: Path, recorded: dict[str, np.ndarray]) -> None:
        replayed = RUNTIME.replay_layers(as_artifact(program, compressed), compressed.contract, recorded)
        assert set(replayed) == {entry.name for entry in compressed.contract.activations if entry.role == "activation"}
        for name, integers in replayed.items():
            np.testing.assert_array_equal(integers, recorded[name], err_msg=name)

    def test_a_changed_tensor_changes_its_readers_only(
        self, compressed: Compressed, program: Path, recorded: dict[str, np.ndarray]
    ) -> None:
        changed = recorded | {"first": recorded["first"] // 2}
        replayed = RUNTIME.replay_layers(as_artifact(program, compressed), compressed.contract, changed)
        touched = {name.rpartition(".")[2] for name in replayed if not np.array_equal(replayed[name], recorded[name])}
        assert touched == {"add", "second"}
