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

__all__ = ["answer", "run", "unanswered"]


def run(graph: Graph, values: Mapping[str, Array], rules: Rules, *, given: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Every tensor that has an exact kernel, and whatever it is computed from has one: see :func:`unanswered`.

    Args:
        graph: The graph.
        values: Input tensor -> its value.
        rules: The rounding rules.
        given: Tensor -> the value its readers see in place of the computed one.

    Returns:
        Computed tensor -> the operation's own answer.
    """
    found: dict[str, Array] = {}
    seen, forced = {**values, **(given or {})}, given or {}
    reasons = unanswered(graph, given=forced)
    for operation in graph.operations:
        if not any(name in reasons for name in operation.writes):
            made = answer(graph, operation, seen, rules)
            found.update(made)
            seen.update({name: forced.get(name, value) for name, value in made.items()})
    return found


def unanswered(graph: Graph, *, given: Mapping[str, Array] | None = None) -> dict[str, str]:
    """Tensors that :func:`run` does not compute, and why.

    Args:
        graph: The graph.
        given: Tensors whose readers see another value than the computed one.
    """
    known = given or {}
    reasons: dict[str, str] = {}
    for operation in graph.operations:
        behind = next((reasons[name] for name in operation.reads if name in reasons and name not in known), "")
        own = "" if operation.kernel in KERNELS else f"{operation.type}: {operation.reason or 'its rounding is not modelled'}"
        if own or behind:
            reasons.update(dict.fromkeys(operation.writes, own or behind))
    return reasons


def answer(graph: Graph, operation: Operation, values: Mapping[str, Array], rules: Rules) -> dict[str, Array]:
    """What one operation makes of given values of what it reads.

    Raises:
        UnsupportedOpError: It has no kernel.
    """
    if operation.kernel not in KERNELS:
        raise UnsupportedOpError(
            f"{operation.type} '{operation.writes[0]}' has no exact kernel: {operation.reason or 'its rounding is not modelled'}."
            f" Kernels there are: {', '.join(sorted(KERNELS))}."
        )
    chosen = rules.of(graph.tensors[operation.writes[0]].dtype)
    made = KERNELS[operation.kernel](Call(graph, operation, values, chosen))
    return dict(zip(operation.writes, made if isinstance(made, tuple) else (made,), strict=False))
