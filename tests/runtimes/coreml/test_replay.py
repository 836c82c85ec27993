"""Layer replay in the reference executor and in a package cut at every activation; native Core ML's interface."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError, DataError, DeviceError, IntegrityError, UsageError
from edgekit.runtimes.coreml import native
from edgekit.runtimes.coreml.cut import GIVEN, OWN, cut_package
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME
from edgekit.runtimes.coreml.replay import replay_cut

Recorded = dict[str, np.ndarray]


class Net(nn.Module):
    """uint8 and int8 activations, a shared tensor, a reshape of integers, and a layer that stays float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, 3, padding=1)
        self.second = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.third = nn.Conv1d(8, 8, 1)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = self.norm(x + self.third(torch.relu(self.second(x))))
        return self.head(nn.functional.adaptive_avg_pool1d(x, 1).flatten(1))


def record(compressed: Compressed) -> Recorded:
    """The program's own integers of every activation entry, ``[S, *shape]``."""
    nodes = {entry.node: entry.name for entry in compressed.contract.activations}
    found: dict[str, list[np.ndarray]] = {name: [] for name in nodes.values()}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            result = super().run_node(node)
            if node.name in nodes:
                found[nodes[node.name]].append(result.numpy())
            return result

    module = compressed.program.module(check_guards=False)
    (inputs,) = compressed.golden.inputs.values()
    with torch.no_grad():
        for sample in inputs:
            Recorder(module).run(torch.from_numpy(sample))
    return {name: np.stack(values) for name, values in found.items()}


@pytest.fixture(scope="session")
def exported(export_package: Callable[..., tuple[Compressed, Artifact]]) -> tuple[Compressed, Artifact]:
    torch.manual_seed(0)
    return export_package(Net(), np.zeros((1, 4, 16), np.float32))


@pytest.fixture(scope="session")
def recorded(exported: tuple[Compressed, Artifact]) -> Recorded:
    return record(exported[0])


def test_every_layer_is_within_one_step(exported: tuple[Compressed, Artifact], recorded: Recorded) -> None:
    compressed, artifact = exported
    replayed = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
    assert set(replayed) == {entry.name for entry in compressed.contract.activations if entry.role == "activation"}
    for name, integers in replayed.items():
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int) - recorded[name]).max() <= 1, name


def test_layers_do_not_see_each_others_answers(exported: tuple[Compressed, Artifact], recorded: Recorded) -> None:
    compressed, artifact = exported
    plain = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
    shifted = {**recorded, "second": recorded["second"][:, :, ::-1].copy()}
    changed = RUNTIME.replay_layers(artifact, compressed.contract, shifted)
    different = {name for name in plain if not np.array_equal(plain[name], changed[name])}
    assert different == {"third"}


def test_cut_package_answers_like_the_executor(exported: tuple[Compressed, Artifact], recorded: Recorded, tmp_path: Path) -> None:
    compressed, artifact = exported
    expected = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
    cut = tmp_path / "cut.mlpackage"
    found = replay_cut(RUNTIME.load, artifact.path, cut, artifact.contract_report, compressed.contract, recorded)
    assert set(found) == set(expected)
    for name, integers in expected.items():
        np.testing.assert_array_equal(found[name], integers)
    given = [spec.name for spec in read_package(cut).inputs if spec.name.endswith(GIVEN)]
    assert len(given) == len(compressed.contract.activations)


def test_cut_package_is_what_core_ml_itself_reads(exported: tuple[Compressed, Artifact], tmp_path: Path) -> None:
    """coremltools' own loader type-checks the cut program."""
    from edgekit.converters.coreml import quiet_coremltools

    _, artifact = exported
    tensors = [artifact.contract_report.tensors[name].tensor for name in ("first", "second")]
    cut_package(artifact.path, tmp_path / "cut.mlpackage", tensors=tensors, variables=read_package(artifact.path).variables)
    with quiet_coremltools():
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        model = coremltools.models.MLModel(str(tmp_path / "cut.mlpackage"), skip_model_load=True)
        program = load(model.get_spec(), model.get_spec().specificationVersion, model.weights_dir)
    names = {output.name for output in program.functions["main"].outputs}
    assert names == {"output", *(name + OWN for name in tensors)}


def test_only_integers_can_be_cut(exported: tuple[Compressed, Artifact], tmp_path: Path) -> None:
    _, artifact = exported
    variables = read_package(artifact.path).variables
    with pytest.raises(ContractError, match="'output' cannot be cut: it is float32"):
        cut_package(artifact.path, tmp_path / "a", tensors=["output"], variables=variables)
    with pytest.raises(ContractError, match="'nothing' cannot be cut: it is not in the package"):
        cut_package(artifact.path, tmp_path / "b", tensors=["nothing"], variables=variables)


def test_recorded_values_that_do_not_fit_are_named(exported: tuple[Compressed, Artifact], recorded: Recorded) -> None:
    compressed, artifact = exported
    with pytest.raises(DataError, match=r"'first' have shape \[8, 1, 8, 15\]; expected \['S', 1, 8, 16\]"):
        RUNTIME.replay_layers(artifact, compressed.contract, {**recorded, "first": recorded["first"][..., 1:]})
    outcomes = [
        outcome.replace(tensor="gone") if outcome.name == "first" else outcome for outcome in artifact.contract_report.outcomes
    ]
    wrong = artifact.replace(contract_report=artifact.contract_report.replace(outcomes=tuple(outcomes)))
    with pytest.raises(ContractError, match="'first' is said to be tensor 'gone'"):
        RUNTIME.replay_layers(wrong, compressed.contract, recorded)


def test_layers_that_read_what_no_entry_holds_are_left_out(export_package: Callable[..., tuple[Compressed, Artifact]]) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 8)
            self.norm = nn.LayerNorm(8)
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(self.norm(self.table(ids)))))

    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 9, (8, 4))
    compressed, artifact = export_package(Tokens(), tokens[:1], calibration=tokens)
    found = RUNTIME.replay_layers(artifact, compressed.contract, record(compressed))
    assert "norm" not in found
    assert {"first", "second"} <= set(found)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here; what is refused elsewhere is tested elsewhere")
def test_native_core_ml_needs_a_mac(exported: tuple[Compressed, Artifact], recorded: Recorded) -> None:
    compressed, artifact = exported
    with pytest.raises(DeviceError, match=r"Core ML runs on macOS only.*'coreml-reference'"):
        native.RUNTIME.load(artifact.path)
    with pytest.raises(DeviceError, match="macOS only"):
        native.RUNTIME.replay_layers(artifact, compressed.contract, recorded)
    with pytest.raises(UsageError, match="'NPU'; known: all, cpu"):
        native.RUNTIME.load(artifact.path, options={"provider": "NPU"})
    assert native.RUNTIME.version().startswith("Core ML of macOS")


@pytest.fixture
def pretended_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coremltools whose models answer through the reference executor, as float64 and flat, as Core ML may."""

    class Model:
        def __init__(self, path: str, compute_units: str) -> None:
            if "broken" in path:
                raise RuntimeError("Error compiling model")
            assert compute_units == "cpu and engine"
            self.session = RUNTIME.load(Path(path))

        def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: value.reshape(-1).astype(np.float64) for name, value in self.session.run(inputs).items()}

    double: Any = types.ModuleType("coremltools")
    double.models = types.SimpleNamespace(MLModel=Model)
    double.ComputeUnit = {"ALL": "cpu and engine"}
    monkeypatch.setitem(sys.modules, "coremltools", double)
    monkeypatch.setattr(sys, "platform", "darwin")


@pytest.mark.usefixtures("pretended_mac")
def test_native_session_speaks_the_common_interface(exported: tuple[Compressed, Artifact], recorded: Recorded) -> None:
    compressed, artifact = exported
    (inputs,), (expected,) = compressed.golden.inputs.values(), compressed.golden.outputs.values()
    session = native.RUNTIME.load(artifact.path)
    assert (session.inputs, session.outputs) == (artifact.inputs, artifact.outputs)
    found = session.run({"x": inputs[0]})["output"]
    assert (found.shape, found.dtype) == ((1, 3), np.float32)
    step = compressed.contract["head"].scale[0]
    assert np.abs(found - expected[0]).max() <= 1.01 * step
    with pytest.raises(DataError, match="is missing"):
        session.run({})
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": inputs[0]})
    replayed = native.RUNTIME.replay_layers(artifact, compressed.contract, recorded)
    for name, integers in RUNTIME.replay_layers(artifact, compressed.contract, recorded).items():
        np.testing.assert_array_equal(replayed[name], integers)


@pytest.mark.usefixtures("pretended_mac")
def test_native_failure_to_load_is_mapped(exported: tuple[Compressed, Artifact], tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(exported[1].path, broken)
    with pytest.raises(IntegrityError, match=r"Core ML cannot load .*Error compiling model"):
        native.RUNTIME.load(broken)
