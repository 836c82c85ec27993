"""The test cases of single operators that the onnx package brings, with inputs and expected outputs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from edgekit.converters.sources.onnx.net import export_net
from edgekit.converters.sources.onnx.source import build_net
from edgekit.converters.sources.onnx.tensors import read_tensor
from edgekit.core.errors import EdgekitError
from edgekit.core.source import SourceOptions

__all__ = ["Case", "Outcome", "cases", "check"]

_HALF_TOLERANCE = 2e-3  # float16 has 11 bits
_EDGES = ("edgekit takes tensors of", "holds elements of type", "not a tensor", "is no tensor", "has no counterpart")


@dataclasses.dataclass(frozen=True)
class Case:
    """One case.

    Args:
        name: As onnx calls it.
        operator: The operator it is about.
        model: The graph.
        inputs: In order; what is no tensor (a sequence, nothing) as it is.
        outputs: Expected, in order.
        tolerance: Relative and absolute.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    tolerance: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case: ``why`` is a kind of reason, ``details`` the words."""

    name: str
    operator: str
    passed: bool
    why: str = ""
    details: str = ""


def cases() -> Iterator[Case]:
    """All cases of single operators."""
    from onnx.backend.test.loader import load_model_tests

    for case in load_model_tests(kind="node"):
        kinds = [node.op_type for node in case.model.graph.node]
        named = next((kind for kind in kinds if kind.lower() in case.name.replace("_", "")), kinds[0])
        for inputs, outputs in case.data_sets:
            yield Case(case.name, named, case.model, inputs, outputs, (case.rtol, case.atol))


def check(case: Case, *, export: bool = False) -> Outcome:
    """Whether edgekit computes what is expected.

    Args:
        case: The case.
        export: Through ``torch.export`` too.
    """
    try:
        answers = _answers(case, export=export)
    except EdgekitError as reason:
        return Outcome(case.name, case.operator, False, _kind(str(reason)), str(reason))
    except (RuntimeError, TypeError, ValueError) as reason:
        return Outcome(case.name, case.operator, False, "fails", f"{type(reason).__name__}: {reason}")
    for got, wanted in zip(answers, case.outputs, strict=True):
        message = _difference(got, _plain(wanted), case.tolerance)
        if message:
            return Outcome(case.name, case.operator, False, "wrong", message)
    return Outcome(case.name, case.operator, True)


def _answers(case: Case, *, export: bool) -> list[torch.Tensor]:
    model, names = onnx.ModelProto(), [value.name for value in case.model.graph.input]
    model.CopyFrom(case.model)
    given = dict(zip(names, (_plain(value) for value in case.inputs), strict=False))
    net, inputs = _built(model, given)
    arguments = [given[spec.name] for spec in inputs]
    with torch.no_grad():
        if export:
            program = export_net(net, arguments, [spec.name for spec in inputs])
            return list(program.module(check_guards=False)(*arguments))
        return list(net(*arguments))


def _built(model: onnx.ModelProto, given: dict[str, Any]) -> tuple[Any, Any]:
    """The net; inputs that must be constant are made so, one after the other."""
    while True:
        open_names = [value.name for value in model.graph.input if value.name not in {t.name for t in model.graph.initializer}]
        shapes = {name: tuple(given[name].shape) for name in open_names if isinstance(given.get(name), torch.Tensor)}
        try:
            net, inputs, _, _ = build_net(model, options=SourceOptions(shapes=shapes), where="case")
        except EdgekitError as reason:
            named = [name for name in open_names if f"'{name}'" in str(reason) and isinstance(given.get(name), torch.Tensor)]
            if not named or not re.search(r"constant|depends on what|chooses by", str(reason)):
                raise
            model.graph.initializer.append(onnx.numpy_helper.from_array(given[named[0]].numpy(), named[0]))
            continue
        return net, inputs


def _plain(value: Any) -> Any:
    """A torch tensor of an array or of a tensor in ONNX's own form."""
    if isinstance(value, onnx.TensorProto):
        return read_tensor(value, "a case")
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | int | float | bool) else value
    return torch.from_numpy(np.array(array)) if isinstance(array, np.ndarray) and array.dtype.kind in "fiub" else array


def _difference(got: torch.Tensor, wanted: Any, tolerance: tuple[float, float]) -> str:
    if not isinstance(wanted, torch.Tensor):
        return "the expected value is no tensor"
    if tuple(got.shape) != tuple(wanted.shape):
        return f"shape {list(got.shape)}, expected {list(wanted.shape)}"
    relative, absolute = (max(limit, _HALF_TOLERANCE) if got.dtype == torch.float16 else limit for limit in tolerance)
    close = torch.isclose(
        got.to(torch.float64), wanted.to(torch.float64), rtol=max(relative, 1e-4), atol=max(absolute, 1e-5), equal_nan=True
    )
    return "" if bool(close.all()) else f"{int((~close).sum())} of {close.numel()} numbers differ"


def _kind(message: str) -> str:
    if any(words in message for words in _EDGES[:4]):
        return "element type or sequence at the model's edge"
    if _EDGES[4] in message:
        return "operator without a counterpart"
    if "at random" in message:
        return "random numbers"
    return "needs a constant, or a form that is not supported"
