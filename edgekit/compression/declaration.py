"""A task's declared preprocessing against its data and its model, before anything is calibrated with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx.node import map_arg

from edgekit.core.errors import DataError
from edgekit.core.preprocessing import Preprocessing, check_shapes, read_preprocessing
from edgekit.core.preprocessing_evidence import find_fault
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.core.tensors import Array

__all__ = ["check_declaration", "own_normalisation"]

_SIMILAR = 0.01
_PASSED_ON = {"aten.clone.default", "aten.alias.default", "aten.to.dtype", "aten._to_copy.default", "aten.contiguous.default"}
_LINEAR = {"aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.div.Tensor"}


def check_declaration(
    name: str,
    described: Mapping[str, Any],
    *,
    program: ExportedProgram,
    inputs: Sequence[TensorSpec],
    samples: Mapping[str, Array] | None,
) -> None:
    """Refuse data that were not prepared as declared, and a declaration of what the model does itself.

    Args:
        name: The task's name, for messages.
        described: Its preprocessing, as plain data.
        program: The captured program.
        inputs: Its inputs, in order.
        samples: Calibration samples by input, ``[S, *shape]``; None where the task has none.

    Raises:
        TaskError: The declaration gives other shapes than the model takes.
        DataError: The samples do not look as declared, or the model normalises in the same way once more.
    """
    records = read_preprocessing(described)
    check_shapes(records, inputs)
    placeholders = dict(zip((spec.name for spec in inputs), program.graph_signature.user_inputs, strict=True))
    for key, record in records.items():
        own = own_normalisation(program, str(placeholders[key]), record)
        if own is not None and record.normalises and _is_like(own, record):
            raise DataError(
                f"Task '{name}': the model begins with the normalisation that preprocessing declares for input '{key}', so values"
                " would be normalised twice. Take it out of the model, or declare scale=1, mean=0, std=1."
            )
        values = None if samples is None else samples[key]
        fault = "" if values is None else find_fault(record, values.reshape(-1, *values.shape[2:]))
        if fault:
            hint = " The model itself begins with a scaling of this input: declare only what is done before it." if own else ""
            raise DataError(
                f"Task '{name}': calibration data of input '{key}' do not look as task.preprocessing declares: {fault}. Prepare"
                f" them as declared, or correct the declaration.{hint}"
            )


def own_normalisation(program: ExportedProgram, placeholder: str, record: Preprocessing) -> tuple[Array, Array] | None:
    """Factor and offset for each channel of what a model does to an input before anything else; None where it does nothing.

    Args:
        program: The program.
        placeholder: Name of the input's node.
        record: Says where the input's channels are.
    """
    constants = _constants(program)
    node = next(node for node in program.graph.nodes if node.name == placeholder)
    factor, offset, found = np.ones(record.channel_count), np.zeros(record.channel_count), False
    while len(node.users) == 1:
        (node,) = node.users
        if str(node.target) in _PASSED_ON:
            continue
        operand = _operand(node, constants, record.channel_count) if str(node.target) in _LINEAR else None
        if operand is None:
            break
        found = True
        factor, offset = _then(str(node.target), factor, offset, operand)
    return (factor, offset) if found else None


def _constants(program: ExportedProgram) -> dict[str, torch.Tensor]:
    signature = program.graph_signature
    names = {**signature.inputs_to_buffers, **signature.inputs_to_parameters, **signature.inputs_to_lifted_tensor_constants}
    values = {**program.constants, **program.state_dict}
    return {node: values[name] for node, name in names.items() if name in values}


def _operand(node: Node, constants: Mapping[str, torch.Tensor], count: int) -> Array | None:
    """The constant a node adds or multiplies with, one number a channel; None where it is no such constant."""
    if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1 or not hasattr(node.args[0], "op"):
        return None
    other: Any = node.args[1]
    value = _constant_value(other, constants) if hasattr(other, "op") else torch.tensor(float(other))
    if value is None or value.numel() not in {1, count}:
        return None
    spread: Array = np.broadcast_to(value.detach().double().numpy().reshape(-1), count)
    return spread


def _constant_value(node: Node, constants: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """A node's value where it depends on constants only; None where it depends on an input."""
    if node.op != "call_function":
        return constants.get(node.name)
    sources = {source: _constant_value(source, constants) for source in node.all_input_nodes}
    if not sources or any(value is None for value in sources.values()):
        return None
    arguments, keywords = map_arg((node.args, node.kwargs), lambda source: sources[source])
    target: Any = node.target
    result = target(*arguments, **keywords)
    return result if isinstance(result, torch.Tensor) else None


def _then(operator: str, factor: Array, offset: Array, operand: Array) -> tuple[Array, Array]:
    if operator == "aten.add.Tensor":
        return factor, offset + operand
    if operator == "aten.sub.Tensor":
        return factor, offset - operand
    scale = operand if operator == "aten.mul.Tensor" else 1 / np.where(operand == 0, np.nan, operand)
    return factor * scale, offset * scale


def _is_like(own: tuple[Array, Array], record: Preprocessing) -> bool:
    """Whether the model's own factor and offset are the declared ones, or those of mean and std alone."""
    mean, std = np.array(record.mean), np.array(record.std)
    for scale in {record.scale, 1.0}:
        factor, offset = np.broadcast_to(scale / std, own[0].shape), np.broadcast_to(-mean / std, own[1].shape)
        is_neutral = np.allclose(factor, 1) and np.allclose(offset, 0)
        if (
            not is_neutral
            and np.allclose(own[0], factor, rtol=_SIMILAR)
            and np.allclose(own[1], offset, rtol=_SIMILAR, atol=1e-6)
        ):
            return True
    return False
