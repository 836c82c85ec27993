"""Constant operands of integer kernels, stored as the integers they become.

Lowering quantizes a constant operand like any other value: ``float constant -> Q -> DQ``. Here the first two are
computed once, and the entry becomes a parameter's: ``int8 constant -> DQ``.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.compression.quantize.nodes import constant, copy_used, put_constant
from edgekit.core.program import register_operators

if TYPE_CHECKING:
    from edgekit.compression.quantize.lower import Lowered

__all__ = ["constant_range", "fold_quantized_constants"]

register_operators()

_Q = torch.ops.quantized_decomposed.quantize_per_tensor.default


def constant_range(value: torch.Tensor) -> tuple[float, float]:
    """The range whose int8 grid is symmetric in -127 to 127 and holds the largest magnitude exactly.

    >>> low, high = constant_range(torch.tensor([0.5]))
    >>> high, round((high - low) / 255 * 127, 9)
    (0.5, 0.5)
    """
    largest = float(value.abs().max()) or 1.0
    return -largest * 128 / 127, largest


def fold_quantized_constants(lowered: Lowered) -> Lowered:
    """Replace every quantized constant of a Q/DQ graph by its integers; returns the graph with the entries moved."""
    module = lowered.module
    quantizes = [node for node in module.graph.nodes if node.target is _Q]
    activations, parameters = [], list(lowered.parameters)
    for node, entry in zip(quantizes, lowered.activations, strict=True):
        value = constant(module, node.args[0])
        if value is None:
            activations.append(entry)
            continue
        with torch.no_grad():
            integers = _Q(value, *node.args[1:])
        stored = put_constant(module, f"{entry.name}_{entry.dtype}", integers, before=node)
        node.replace_all_uses_with(stored)
        module.graph.erase_node(node)
        digest = hashlib.sha256(np.ascontiguousarray(integers.numpy()).tobytes()).hexdigest()
        changes: dict[str, Any] = {"role": "weight", "op": "constant", "sha256": digest, "node": str(stored.target)}
        parameters.append(entry.replace(**changes))
    if len(activations) == len(lowered.activations):
        return lowered
    module.graph.eliminate_dead_code()
    return dataclasses.replace(lowered, module=copy_used(module), activations=activations, parameters=parameters)
