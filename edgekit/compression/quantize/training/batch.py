"""Call a graph that was traced for one batch size with any: training on one sample a step would take days.

============ ===================================================================================================
directly     the batch that reshape and its kin hold is replaced by "whatever is left"
mapped       ``torch.vmap`` over traced batches: also where the batch was moved from its place, as in attention
one by one   a call for each traced batch; always right, and slow
============ ===================================================================================================

Whether a way gives the same function is tried out on data, not assumed; the first that does is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.training.fake_quantize import Constant

__all__ = ["BatchCall", "choose_call"]

_RESHAPES = {"aten.view.default", "aten.reshape.default", "aten._unsafe_view.default"}
_EXPANDS = {"aten.expand.default"}
_RECURRENT = ("aten.lstm.", "aten.gru.", "aten.rnn_")  # torch crashes on a batch other than the initial state's: never tried
_LARGEST_ERROR = 0.05  # of the spread between samples: values that round the other way differ, mixed-up samples differ by 1


@dataclasses.dataclass(frozen=True)
class BatchCall:
    """How a graph is called with ``[N, ...]`` inputs.

    Args:
        way: See the table above.
        batch_size: What the graph was traced for.
    """

    way: Literal["directly", "mapped", "one by one"]
    batch_size: int

    def __call__(self, module: GraphModule, arguments: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Outputs ``[N, ...]``."""
        total = arguments[0].shape[0]
        if self.way == "directly" or total == self.batch_size:
            return _flat(module(*arguments))
        rows = torch.arange(-(-total // self.batch_size) * self.batch_size, device=arguments[0].device).clamp_max(total - 1)
        parts = [argument[rows].reshape(-1, self.batch_size, *argument.shape[1:]) for argument in arguments]
        with _holding(module):
            if self.way == "mapped":
                outputs = _map(module, parts)
            else:
                calls = [_flat(module(*(part[at] for part in parts))) for at in range(parts[0].shape[0])]
                outputs = tuple(torch.stack(results) for results in zip(*calls, strict=True))
        return tuple(output.flatten(0, 1)[:total] for output in outputs)


def choose_call(module: GraphModule, arguments: Sequence[torch.Tensor], *, batch_size: int) -> BatchCall:
    """Find the fastest way that computes the same function.

    Args:
        module: Traced graph; its reshapes are rewritten, which keeps its function at ``batch_size``.
        arguments: Samples to try with, each ``[N, ...]`` with ``N`` a multiple of ``batch_size``.
        batch_size: What it was traced for.
    """
    if any(str(node.target).startswith(_RECURRENT) for node in module.graph.nodes):
        return BatchCall("one by one", batch_size)
    for node in module.graph.nodes:
        if str(node.target) in _RESHAPES | _EXPANDS:
            _free_sizes(node, batch_size)
    module.recompile()
    with torch.no_grad():
        expected = BatchCall("one by one", batch_size)(module, arguments)
        for way in ("directly", "mapped"):
            call = BatchCall(way, batch_size)
            try:
                found = call(module, arguments)
            except (RuntimeError, IndexError, ValueError):  # a shape that still holds the batch; no rule to map an operator
                continue
            if all(_is_same(a, b) for a, b in zip(found, expected, strict=True)):
                return call
    return BatchCall("one by one", batch_size)


def _is_same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    spread = float((expected - expected.mean(0, keepdim=True)).double().norm()) if expected.is_floating_point() else 0.0
    error = float((found.double() - expected.double()).norm())
    return error <= _LARGEST_ERROR * spread + 1e-6 * float(expected.double().norm())


def _map(module: GraphModule, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operator is mapped sample by sample is no news beside "one by one"
        outputs: Any = torch.vmap(lambda *sample: _flat(module(*sample)))(*parts)
    return tuple(outputs)


@contextlib.contextmanager
def _holding(module: GraphModule) -> Iterator[None]:
    """Compute weights and biases once for all samples of a call."""
    constants = [part for part in module.modules() if isinstance(part, Constant)]
    for part in constants:
        part.held = part.compute()
    try:
        yield
    finally:
        for part in constants:
            part.held = None


def _flat(result: Any) -> tuple[torch.Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _free_sizes(node: Node, batch_size: int) -> None:
    """``view(x, [B, -1])`` -> ``view(x, [-1, 96])``: the traced shape gives every size but the first."""
    sizes: Any = node.args[1]
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.ndim or not all(isinstance(size, int) for size in sizes):
        return
    if str(node.target) in _EXPANDS:
        if sizes[0] == batch_size:
            node.update_arg(1, [-1, *sizes[1:]])
        return
    if value.shape[0] % batch_size == 0:
        node.update_arg(1, [-1, *(int(size) for size in value.shape[1:])])
