"""Makes the campaign's seeds with edgekit's own exporter: ``python benchmarks/fuzzing/make_seeds.py`` (a minute).

Tiny nets, float and int8, with open sizes and with control flow, in every format; and the files edgekit itself writes.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edgekit as ek
from edgekit.core.cache import FolderCache
from edgekit.core.compressed import CompressedRecord
from edgekit.core.files import replace_folder

SEEDS = Path(__file__).resolve().parent / "seeds"


class Net(nn.Module):
    """A convolution, a residual, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """``[N, 3, H, W]`` to ``[N, 3]``."""
        x = torch.relu(self.stem(picture))
        return torch.softmax(self.head((x + self.inner(x)).mean((2, 3))), -1)


class Recurrent(nn.Module):
    """A loop over time, which formats write as a recurrent operator or as control flow."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """``[N, T, 3]`` to ``[N, T, 2]``."""
        return self.head(self.cell(signal)[0])


def task(kind: str) -> ek.Task:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    if kind == "recurrent":
        signals = draw.standard_normal((8, 4, 3), np.float32)
        return ek.Task(name=kind, model=Recurrent(), example_inputs=signals[:1], calibration=[signals])
    pictures = draw.standard_normal((8, 3, 6, 6), np.float32)
    if kind == "open":
        return ek.Task(
            name=kind, model=Net(), example_inputs=pictures[:1], calibration=[pictures], shapes={"picture": {2: range(4, 9)}}
        )
    return ek.Task(name=kind, model=Net(), example_inputs=pictures[:1], calibration=[pictures])


def branching(folder: Path) -> None:
    """An If and a Loop, as ONNX writes them."""
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info
    edge = {name: value(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y", "then", "else", "carried", "next")}
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [edge[name]])
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    turn = [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), edge["carried"]]
    steps = [helper.make_node("Add", ["carried", "x"], ["next"]), helper.make_node("Identity", ["go"], ["goes"])]
    body = helper.make_graph(steps, "body", turn, [value("goes", TensorProto.BOOL, []), edge["next"]])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["is_positive"]),
        helper.make_node("If", ["is_positive"], ["branch"], **branches),
        helper.make_node("Loop", ["count", "", "branch"], ["y"], body=body),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("count", TensorProto.INT64, [], [3]),
    ]
    graph = helper.make_graph(nodes, "g", [edge["x"]], [edge["y"]], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / "branching.onnx")


def without_paths(folder: Path) -> None:
    """Take the places of source files on this machine out of what was made."""
    for path in folder.rglob("*.pt2"):
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, re.sub(rb"/[^\s\"\\,]*/([^\s\"\\,/]*\.py)", rb"\1", content))
    for path in folder.rglob("*.config"):
        path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#")))


def artifacts(run: Path, name: str, folder: Path) -> None:
    for place in sorted((run / "artifacts").iterdir()):
        artifact = ek.Artifact.load(place)
        target = folder / f"{name}-{place.name.partition('-')[2] or 'int8'}{artifact.path.suffix}"
        if artifact.path.is_dir():
            shutil.copytree(artifact.path, target)
        else:
            shutil.copyfile(artifact.path, target)
        for companion in artifact.companions.values():
            if companion.suffix == ".ort":
                shutil.copyfile(companion, target.with_suffix(".ort"))


def own_files(run: Path, folder: Path) -> None:
    """What edgekit reads back of its own: a run, an artifact with its self-test, a recipe, a profile."""
    kept = folder / "run.edgekit"
    for name in ("edgekit.json", "compressed/contract.json", "compressed/compressed.json", "compressed/golden.npz"):
        target = kept / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target)
    record = CompressedRecord.read_json(kept / "compressed" / "compressed.json")
    digests = {name: record.sha256[name] for name in ("contract.json", "golden.npz")}  # the programs are fuzzed as .pt2
    record.replace(sha256=digests).write_json(kept / "compressed" / "compressed.json")
    shutil.copytree(run / "artifacts" / "onnx", kept / "artifacts" / "onnx")
    (kept / "made").mkdir()
    (kept / "made" / "model.bin").write_bytes(b"made before")
    FolderCache(kept / "cache", 10**6).put("0" * 8, kept / "made")
    shutil.rmtree(kept / "made")
    (folder / "recipe.toml").write_text(ek.Recipe.parse_text("prune50+distill+int8").to_toml())
    shutil.copyfile(Path(ek.__file__).parent / "device_tests" / "profiles" / "host.toml", folder / "profile.toml")


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="edgekit-seeds-") as scratch:
        folder = Path(scratch, "seeds")
        folder.mkdir()
        for kind in ("net", "open", "recurrent"):
            run = Path(scratch, kind)
            ek.compress(task(kind), recipe="none" if kind == "open" else "int8", output=run)
            targets = ["onnx"] if kind == "open" else ["onnx", "tflite", "coreml"]
            targets += ["torch-export"] if kind == "net" else []
            ek.export(run, targets=targets)
            artifacts(run, kind, folder)
        own_files(Path(scratch, "net"), folder)
        branching(folder)
        without_paths(folder)
        replace_folder(folder, SEEDS)


if __name__ == "__main__":
    main()
