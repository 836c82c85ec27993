"""Runs a quantized graph with one runtime's rounding rules, tensor by tensor.

Each operation reads what a caller says a tensor holds where it says so, and what was computed before otherwise: with the values
of a runtime (teacher forcing) every operation is answered alone, and no rounding reaches the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.exact.kernels import KERNELS, Call

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.graph import Graph, Operation
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["answer", "run"]


def run(graph: Graph, values: Mapping[str, Array], rules: Rules, *, given: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Every computed tensor.

    Args:
        graph: The graph.
        values: Input tensor -> its value.
        rules: The rounding rules.
        given: Tensor -> the value its readers see in place of the computed one.

    Returns:
        Computed tensor -> the operation's own answer.

    Raises:
        UnsupportedOpError: An operation has no kernel, and its value is not given.
    """
    found: dict[str, Array] = {}
    seen = dict(values)
    forced = given or {}
    for operation in graph.operations:
        if not operation.kernel and all(name in forced for name in operation.writes):
            seen.update({name: forced[name] for name in operation.writes})
            continue
        made = answer(graph, operation, seen, rules)
        found.update(made)
        seen.update({name: forced.get(name, value) for name, value in made.items()})
    return found


def answer(graph: Graph, operation: Operation, values: Mapping[str, Array], rules: Rules) -> dict[str, Array]:
    """What one operation makes of given values of what it reads.

    Raises:
        UnsupportedOpError: It has no kernel.
    """
    if operation.kernel not in KERNELS:
        raise UnsupportedOpError(
            f"{operation.type} '{operation.writes[0]}' has no exact kernel: {operation.reason or 'its rounding is not modelled'}."
            f" Operators with one: {', '.join(sorted(KERNELS))}."
        )
    made = KERNELS[operation.kernel](Call(graph, operation, values, rules))
    return dict(zip(operation.writes, made if isinstance(made, tuple) else (made,), strict=False))
