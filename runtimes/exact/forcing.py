"""Exact kernels fed a runtime's own values: each operation of a file answered from what the runtime had before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.runtimes.exact.executor import answer
from edgekit.runtimes.exact.kernels import KERNELS

if TYPE_CHECKING:
    from edgekit.core.provenance import TracedFile
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.graph import Graph
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["forced_answers"]


def forced_answers(graph: Graph, file: TracedFile, rules: Rules) -> dict[str, Array]:
    """What a runtime's rules make of its own values.

    Args:
        graph: The file's graph.
        file: Every tensor of the file, as the runtime computed it.
        rules: The rounding rules.

    Returns:
        Tensor -> ``[S, *shape]``, for every traced tensor whose operation has an exact kernel and whose sources were traced.
    """
    found: dict[str, Array] = {}
    count = len(next(iter(file.values.values()), ()))
    for operation in graph.operations:
        needed = [name for name in operation.reads if name and graph.tensors[name].constant is None]
        if operation.kernel not in KERNELS or any(name not in file.values for name in (*needed, *operation.writes)):
            continue
        rows = [answer(graph, operation, {name: file.values[name][at] for name in needed}, rules) for at in range(count)]
        found.update({name: np.stack([row[name] for row in rows]) for name in operation.writes if name in rows[0]})
    return found
