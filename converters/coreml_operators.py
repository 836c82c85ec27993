"""Functions for operators that coremltools has none for, or a wrong one, written in MIL's operations.

Each is called as coremltools calls its own: with its transcription context and the node. What was used in a program is
listed in the export (``Artifact.rewrites``), as a rewrite before the conversion would be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from edgekit.converters import coreml_recurrent
from edgekit.converters.coreml_frontend import arguments, builder
from edgekit.core.artifact import RewriteRecord

if TYPE_CHECKING:
    from torch.fx import Node

__all__ = ["FUNCTIONS", "OperatorFunction", "register", "used"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorFunction:
    """A function that adds MIL operations for one operator.

    Args:
        name: What it does, in words joined by hyphens.
        operators: As torch spells them, ``"aten.lstm.input"``.
        convert: Called with coremltools' context and node; adds the result to the context under the node's name.
        because: What coremltools does without it; empty where nobody needs to know.
    """

    name: str
    operators: tuple[str, ...]
    convert: Callable[[Any, Any], None]
    because: str


def register() -> None:
    """Make coremltools use these functions; does nothing the second time."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    for function in FUNCTIONS:
        for operator in function.operators:
            _TORCH_OPS_REGISTRY.set_func_by_name(function.convert, sanitize_op_kind(operator))


def used(nodes: Iterable[Node]) -> tuple[RewriteRecord, ...]:
    """The functions a program makes use of."""
    found = [str(node.target) for node in nodes]
    counts = [(function, sum(found.count(operator) for operator in function.operators)) for function in FUNCTIONS]
    return tuple(
        RewriteRecord(name=function.name, count=count, because=function.because)
        for function, count in counts
        if count and function.because
    )


def _alias(context: Any, node: Any) -> None:
    context.add(builder().identity(x=arguments(context, node)[0], name=node.name))


def _trunc(context: Any, node: Any) -> None:
    x, mil = arguments(context, node)[0], builder()
    context.add(mil.mul(x=mil.sign(x=x), y=mil.floor(x=mil.abs(x=x)), name=node.name))


def _gelu(context: Any, node: Any) -> None:
    (approximate,) = (node.kwinputs or {}).get("approximate", ("none",))
    mode = "TANH_APPROXIMATION" if approximate == "tanh" else "EXACT"
    context.add(builder().gelu(x=arguments(context, node)[0], mode=mode, name=node.name))


_SCATTER_MODES = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


def _scatter_reduce(context: Any, node: Any) -> None:
    data, axis, indices, updates, reduce = arguments(context, node)[:5]
    mode = _SCATTER_MODES[str(getattr(reduce, "val", reduce))]
    context.add(builder().scatter_along_axis(data=data, indices=indices, updates=updates, axis=axis, mode=mode, name=node.name))


FUNCTIONS = (
    OperatorFunction(name="alias-to-identity", operators=("aten.alias.default",), convert=_alias, because=""),
    OperatorFunction(name="trunc-to-floor", operators=("aten.trunc.default",), convert=_trunc, because=""),
    OperatorFunction(name="gelu-with-its-mode", operators=("aten.gelu.default",), convert=_gelu, because=""),
    OperatorFunction(
        name="scatter-reduce-along-axis",
        operators=("aten.scatter_reduce.two",),
        convert=_scatter_reduce,
        because="coremltools 9 has no function for scatter_reduce",
    ),
    OperatorFunction(
        name="lstm-kept-whole",
        operators=("aten.lstm.input",),
        convert=coreml_recurrent.lstm,
        because="coremltools 9 takes LSTM layers from traced programs only",
    ),
    OperatorFunction(
        name="rnn-kept-whole",
        operators=("aten.rnn_tanh.input", "aten.rnn_relu.input"),
        convert=coreml_recurrent.rnn,
        because="coremltools 9 takes recurrent layers from traced programs only",
    ),
)
