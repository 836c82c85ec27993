"""ONNX Runtime: loading, options, errors, and the file cut into its layers."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.converters.onnx import CONVERTER
from edgekit.converters.onnx_ort import chosen_kernels
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.contract import ContractReport
from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.task import Task
from edgekit.runtimes.onnxruntime import RUNTIME
from edgekit.runtimes.onnxruntime_replay import cut
from edgekit.runtimes.onnxruntime_session import sums_saturate
from edgekit.runtimes.torch import record_layers


class Net(nn.Module):
    """Depthwise block with a skip, a concatenation of different ranges, and a head; plus a layer fed by an index."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Embedding(4, 8)
        self.stem, self.depthwise, self.point = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.head, self.offset = nn.Linear(16, 5), nn.Linear(8, 5)

    def forward(self, image: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(image))
        y = x + self.point(torch.relu(self.depthwise(x)))
        return self.head(torch.cat([x, y], 1).mean([2, 3])) + self.offset(self.place(place))


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    batch = {"image": random.standard_normal((16, 3, 12, 10), np.float32), "place": np.arange(16) % 4}
    example = {"image": batch["image"][:1], "place": batch["place"][:1]}
    state = pipeline.compress(Task(name="net", model=Net(), example_inputs=example, calibration=[batch]))
    return state.save(tmp_path_factory.mktemp("net") / "compressed")


def make(compressed: Compressed, folder: Path, **options: object) -> Artifact:
    return CONVERTER.convert(compressed, output=folder, options=ExportOptions.parse(options, source="test"))


@pytest.fixture(scope="module")
def artifact(compressed: Compressed, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make(compressed, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def recorded(compressed: Compressed) -> dict[str, np.ndarray]:
    assert compressed.folder is not None
    return record_layers(compressed.folder / "program.pt2", compressed.contract, dict(compressed.golden.inputs))


def sample_of(compressed: Compressed) -> dict[str, np.ndarray]:
    return {name: values[0] for name, values in compressed.golden.inputs.items()}


class TestLoad:
    def test_same_answer_with_more_threads_and_without_spinning(self, artifact: Artifact, compressed: Compressed) -> None:
        expected = RUNTIME.load(artifact.path).run(sample_of(compressed))["output"]
        for threads, options in ((2, {}), (2, {"spinning": False}), (1, {"optimization": "basic"})):
            found = RUNTIME.load(artifact.path, threads=threads, options=options).run(sample_of(compressed))["output"]
            np.testing.assert_allclose(found, expected, atol=0.05)

    @pytest.mark.parametrize("options", [{"optimisation": "all"}, {"optimization": "al"}], ids=str)
    def test_unknown_option(self, artifact: Artifact, options: dict[str, str]) -> None:
        with pytest.raises(UsageError, match=r"Did you mean '(optimization|all)'"):
            RUNTIME.load(artifact.path, options=options)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match=r"gone\.onnx cannot be read: No such file"):
            RUNTIME.load(tmp_path / "gone.onnx")

    @pytest.mark.parametrize("which", ["onnx", "ort"])
    @pytest.mark.parametrize("kept", [0, 7, 200, 2000])
    def test_truncated_file(self, artifact: Artifact, tmp_path: Path, which: str, kept: int) -> None:
        source = artifact.path if which == "onnx" else artifact.companions["ort"]
        damaged = tmp_path / f"model.{which}"
        damaged.write_bytes(source.read_bytes()[:kept])
        with pytest.raises(IntegrityError, match=f"model.{which} is not a model ONNX Runtime"):
            RUNTIME.load(damaged)

    @pytest.mark.parametrize(("op_type", "domain"), [("Frobnicate", "com.example"), ("Sin", "")])
    def test_operator_without_kernel(self, tmp_path: Path, op_type: str, domain: str) -> None:
        kind = onnx.TensorProto.BFLOAT16 if op_type == "Sin" else onnx.TensorProto.FLOAT
        edges = [onnx.helper.make_tensor_value_info(name, kind, [1]) for name in ("x", "y")]
        graph = onnx.helper.make_graph([onnx.helper.make_node(op_type, ["x"], ["y"], domain=domain)], "g", edges[:1], edges[1:])
        sets = [onnx.helper.make_opsetid("", 22), onnx.helper.make_opsetid("com.example", 1)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=sets, ir_version=10), tmp_path / "odd.onnx")
        with pytest.raises(UnsupportedOpError, match=rf"odd\.onnx: ONNX Runtime .* has no kernel.*{op_type}"):
            RUNTIME.load(tmp_path / "odd.onnx")

    def test_closed_session(self, artifact: Artifact, compressed: Compressed) -> None:
        session = RUNTIME.load(artifact.path)
        session.close()
        with pytest.raises(DataError, match="closed"):
            session.run(sample_of(compressed))

    def test_runs_and_replays_without_torch(self, artifact: Artifact) -> None:
        code = (
            "import sys; sys.modules['torch'] = None\n"
            "import numpy as np, pathlib\n"
            "from edgekit.runtimes.onnxruntime import RUNTIME\n"
            "import edgekit.runtimes.onnxruntime_replay\n"
            "session = RUNTIME.load(pathlib.Path(sys.argv[1]))\n"
            "inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in session.inputs}\n"
            "print(session.run(inputs)['output'].shape, 'tensorflow' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(artifact.path)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "(1, 5) False"


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 fma", True),
        ("AMD64", None, True),
        ("x86_64", "flags : avx512f avx512_vnni", False),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("aarch64", None, False),
    ],
)
def test_saturating_processors_are_known(machine: str, flags: str | None, expected: bool) -> None:
    assert sums_saturate(machine, flags) is expected


class TestReplay:
    @pytest.mark.parametrize("options", [{}, {"integer_io": True}, {"activation_type": "int8"}], ids=str)
    def test_every_layer_is_within_one_step(
        self, compressed: Compressed, recorded: dict[str, np.ndarray], tmp_path: Path, options: dict[str, object]
    ) -> None:
        artifact = make(compressed, tmp_path, **options)
        replayed = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
        indexed = {"place"}  # its integers come from an index, which no quantized layer feeds
        expected = {entry.name for entry in compressed.contract.activations if entry.role == "activation"} - indexed
        assert set(replayed) == expected
        for name, integers in replayed.items():
            assert integers.dtype == np.int8
            assert integers.shape == recorded[name].shape
            assert np.abs(integers.astype(int) - recorded[name]).max() <= 1, name
            assert (integers == recorded[name]).mean() > 0.95, name

    def test_kernels_are_those_of_the_whole_file(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        layers = cut(artifact.path.read_bytes(), artifact.contract_report, compressed.contract, recorded)
        (tmp_path / "cut.onnx").write_bytes(layers.model)
        whole, pieces = chosen_kernels(artifact.path), chosen_kernels(tmp_path / "cut.onnx")
        kernels = Counter({name: count for name, count in whole.items() if name.startswith("Q") and name != "QuantizeLinear"})
        assert kernels["QLinearConv"] == 3
        assert kernels["QLinearAdd"] == 2
        assert {name: pieces[name] for name in kernels} == dict(kernels)

    def test_one_wrong_layer_does_not_touch_the_next(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]
    ) -> None:
        right = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
        wrong = RUNTIME.replay_layers(artifact, compressed.contract, recorded | {"stem": recorded["stem"] // 2})
        changed = {name.rpartition(".")[2] for name in right if not np.array_equal(right[name], wrong[name])}
        assert changed == {"add", "cat", "depthwise"}

    def test_recorded_integers_must_fit_the_contract(
        self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]
    ) -> None:
        with pytest.raises(DataError, match=r"'stem' are int16 .*expected int8 \['S', 1, 8, 10, 8\]"):
            RUNTIME.replay_layers(artifact, compressed.contract, recorded | {"stem": recorded["stem"].astype(np.int16)})

    def test_report_must_fit_the_file(self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        outcomes = [
            outcome.replace(tensor="elsewhere") if outcome.name == "stem" else outcome
            for outcome in artifact.contract_report.outcomes
        ]
        other = artifact.replace(contract_report=ContractReport(outcomes=tuple(outcomes)))
        with pytest.raises(IntegrityError, match="no tensor 'elsewhere', which the contract report names for 'stem'"):
            RUNTIME.replay_layers(other, compressed.contract, recorded)

    def test_ort_files_cannot_be_cut(self, artifact: Artifact, compressed: Compressed, recorded: dict[str, np.ndarray]) -> None:
        with pytest.raises(IntegrityError, match="Export again"):
            RUNTIME.replay_layers(artifact.replace(path=artifact.companions["ort"]), compressed.contract, recorded)
