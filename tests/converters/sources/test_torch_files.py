"""Files torch writes: programs, TorchScript, checkpoints; each gives a program that answers as the net does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.converters.sources import pt2, state_dict, torchscript
from edgekit.core.errors import CaptureError, ConversionError, IntegrityError, TaskError, UnsupportedOpError, UsageError
from edgekit.core.program import run_program
from edgekit.core.source import ImportedModel, SourceOptions

SHAPE = (1, 3, 8, 8)
X = torch.randn(*SHAPE, generator=torch.Generator().manual_seed(0))

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, image):
        return self.norm(self.layer(image)).relu().mean((2, 3))

def build():
    return Net()

def wide():
    net = Net()
    net.layer = nn.Conv2d(3, 8, 3)
    return net

def renamed():
    net = Net()
    net.layers = net.layer
    del net.layer
    return net

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("files")
    (place / "nets.py").write_text(NET)
    return place


@pytest.fixture(scope="module")
def net(folder: Path) -> nn.Module:
    from edgekit.core.task import execute_file

    torch.manual_seed(0)
    built: nn.Module = execute_file(folder / "nets.py").build().eval()
    return built


def check(model: ImportedModel, expected: Sequence[torch.Tensor], given: Sequence[torch.Tensor] = (X,)) -> None:
    found = run_program(model.program, given)
    assert [tuple(value.shape) for value in found] == [spec.shape for spec in model.outputs]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def options(**fields: Any) -> SourceOptions:
    return SourceOptions(**{"shapes": {"image": SHAPE}, **fields})


class Several(nn.Module):
    """Nested and named inputs, a dictionary out."""

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor], *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": (pair[0] + pair[1]) * scale, "first": pair[0].relu()}


def saved(program: torch.export.ExportedProgram, path: Path) -> Path:
    torch.export.save(program, path)
    return path


def test_a_program_with_an_open_batch_is_fixed(folder: Path, net: nn.Module) -> None:
    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=16)}}
    program = torch.export.export(net, (X.repeat(2, 1, 1, 1),), dynamic_shapes=shapes)
    path = saved(program, folder / "open.pt2")
    model = pt2.SOURCE.read(path, options=SourceOptions())
    assert model.inputs[0].shape == SHAPE
    assert "fixed" in model.notes[0]
    check(model, [net(X)])
    four = pt2.SOURCE.read(path, options=options(shapes={"image": (4, 3, 8, 8)}))
    assert four.inputs[0].shape == (4, 3, 8, 8)
    assert four.outputs[0].shape == (4, 4)


def test_a_program_of_nested_inputs_becomes_flat(folder: Path) -> None:
    one, two, scale = torch.randn(3, 2, 2)
    program = torch.export.export(Several(), ((one, two),), {"scale": scale})
    model = pt2.SOURCE.read(saved(program, folder / "nested.pt2"), options=SourceOptions())
    assert len(model.inputs) == 3
    result = Several()((one, two), scale=scale)
    check(model, list(result.values()), (one, two, scale))


def test_sizes_a_program_fixes_cannot_be_wished_away(folder: Path, net: nn.Module) -> None:
    path = saved(torch.export.export(net, (X,)), folder / "fixed.pt2")
    with pytest.raises(UsageError, match="'image' is 1,3,8,8, and cannot be 1,3,16,16"):
        pt2.SOURCE.read(path, options=options(shapes={"image": (1, 3, 16, 16)}))
    with pytest.raises(UsageError, match=r"no input 'imag'.*Did you mean 'image'"):
        pt2.SOURCE.read(path, options=options(shapes={"imag": SHAPE}))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("make", [lambda net: torch.jit.trace(net, X), torch.jit.script], ids=["traced", "scripted"])
def test_torchscript(folder: Path, net: nn.Module, make: Callable[[nn.Module], Any]) -> None:
    path = folder / "script.pt"
    make(net).save(path)
    assert torchscript.SOURCE.recognises(path)
    assert not state_dict.SOURCE.recognises(path)
    with pytest.raises(UsageError, match=r"leaves the shape of input 'image' open.*--shape image="):
        torchscript.SOURCE.read(path, options=SourceOptions())
    model = torchscript.SOURCE.read(path, options=options())
    assert [spec.name for spec in model.inputs] == ["image"]
    targets = [str(node.target) for node in model.program.graph.nodes if node.op == "call_function"]
    assert "aten.conv2d.default" in targets  # not the convolution of all ranks, which nothing quantizes
    check(model, [net(X)])
    with pytest.raises(CaptureError, match="fails on inputs of these shapes"):
        torchscript.SOURCE.read(path, options=options(shapes={"image": (1, 5, 8, 8)}))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_with_a_branch_on_values_says_what_to_do(folder: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = [x]
            while bool(total[-1].sum() > 1):
                total.append(total[-1] * 0.5)
            return total[-1]

    path = folder / "branch.pt"
    torch.jit.script(Branch()).save(path)  # type: ignore[no-untyped-call]
    with pytest.raises((UnsupportedOpError, CaptureError), match=r"branch.pt"):
        torchscript.SOURCE.read(path, options=SourceOptions(shapes={"x": (1, 4)}))


@pytest.mark.parametrize("form", ["bare", "nested", "parallel", "legacy", "safetensors"])
def test_checkpoints_of_all_forms(folder: Path, net: nn.Module, form: str) -> None:
    weights, path = net.state_dict(), folder / f"{form}.pt"
    if form == "safetensors":
        from safetensors.torch import save_file

        path = folder / "weights.safetensors"
        save_file(weights, path)
    elif form == "nested":
        torch.save({"epoch": 3, "model_state_dict": weights}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form != "legacy")
    assert state_dict.SOURCE.recognises(path)
    model = state_dict.SOURCE.read(path, options=options(factory=f"{folder / 'nets.py'}:build"))
    check(model, [net(X)])


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        ("wide", ConversionError, r"'layer.weight' is \[4, 3, 3, 3\] in the file and \[8, 3, 3, 3\] in the net"),
        ("renamed", ConversionError, "2 weights of the net are missing: 'layers.weight' nearest in the file is 'layer.weight'"),
        ("broken", TaskError, "no weights here"),
        ("number", TaskError, "returned a int"),
        ("buid", UsageError, "defines no function 'buid'.*Did you mean 'build'"),
    ],
)
def test_weights_and_net_must_belong_together(
    folder: Path, net: nn.Module, function: str, error: type[Exception], words: str
) -> None:
    path = folder / "weights.pt"
    torch.save(net.state_dict(), path)
    with pytest.raises(error, match=words):
        state_dict.SOURCE.read(path, options=options(factory=f"{folder / 'nets.py'}:{function}"))


def test_weights_alone_ask_for_their_net(folder: Path, net: nn.Module) -> None:
    path = folder / "alone.pt"
    torch.save(net.state_dict(), path)
    with pytest.raises(UsageError, match=r"--factory FILE.py:FUNCTION"):
        state_dict.SOURCE.read(path, options=options())


def test_a_pickled_net_is_refused_unless_trusted(folder: Path) -> None:
    whole = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval()
    path = folder / "whole.pt"
    torch.save(whole, path)
    with pytest.raises(IntegrityError, match=r"torch.nn.modules.container.Sequential.*delete.*--trust-pickle"):
        state_dict.SOURCE.read(path, options=options())
    check(state_dict.SOURCE.read(path, options=options(shapes={"input": SHAPE}, trust_pickle=True)), [whole(X)])


def test_weights_that_are_not_finite_are_refused(folder: Path, net: nn.Module) -> None:
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    weights["layer.bias"][1] = float("nan")
    path = folder / "nan.pt"
    torch.save(weights, path)
    with pytest.raises(IntegrityError, match=r"'layer.bias' holds 1 values"):
        state_dict.SOURCE.read(path, options=options(factory=f"{folder / 'nets.py'}:build"))


def test_samples_set_the_shape_and_are_kept(folder: Path, net: nn.Module) -> None:
    path, samples = folder / "sampled.pt", folder / "samples.npz"
    torch.save(net.state_dict(), path)
    array = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    np.savez(samples, image=array)
    given = SourceOptions(factory=f"{folder / 'nets.py'}:build", samples=str(samples))
    model = state_dict.SOURCE.read(path, options=given)
    assert model.inputs[0].shape == SHAPE
    assert np.array_equal(model.samples["image"], array[:, None])
