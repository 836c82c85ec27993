"""An ONNX file cut into its quantized layers: one graph in which each layer reads fresh inputs and is an output.

::

    q0 ─ DQ ─ conv ─ Q ─ q1 ─ DQ ─ conv ─ Q ─ q2      the file
    in0 ─ DQ ─ conv ─ Q ─ q1      in1 ─ DQ ─ conv ─ Q ─ q2      cut at q0, q1, q2

Each piece is still the pattern that ONNX Runtime fuses, so the kernels are those of the whole file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
from edgekit.core.errors import DataError, IntegrityError

if TYPE_CHECKING:
    import onnx

    from edgekit.core.tensors import Array

__all__ = ["Layers", "cut"]

_FRESH = "edgekit_fed/"


@dataclasses.dataclass(frozen=True)
class Layers:
    """The cut model, and how the contract's integers go in and come out.

    Args:
        model: The cut .onnx file.
        fed: Fresh input -> the contract entry whose integers it takes.
        made: Contract entry -> the tensor that holds the layer's answer.
        outcomes: Contract entry -> type and shift in the file.
        shapes: Contract entry -> shape.
        dtypes: Contract entry -> integer type in the contract.
    """

    model: bytes
    fed: Mapping[str, str]
    made: Mapping[str, str]
    outcomes: Mapping[str, EntryOutcome]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    def run(self, session: Any, recorded: Mapping[str, Array]) -> dict[str, Array]:
        """Feed each sample; ``recorded`` and the result are ``[S, *shape]`` by entry, on the contract's grid."""
        sample_count = len(next(iter(recorded.values()))) if recorded else 0
        names = list(dict.fromkeys(self.made.values()))
        wanted = {argument.name for argument in session.get_inputs()}
        fed = {tensor: entry for tensor, entry in self.fed.items() if tensor in wanted}
        typed = {tensor: self._to_file(entry, recorded[entry]) for tensor, entry in fed.items()}
        rows = (
            [session.run(names, {tensor: values[i] for tensor, values in typed.items()}) for i in range(sample_count)]
            if names
            else []
        )
        stacked = {name: np.stack([row[position] for row in rows]) for position, name in enumerate(names)} if rows else {}
        return {entry: self._from_file(entry, stacked[tensor]) for entry, tensor in self.made.items() if tensor in stacked}

    def _to_file(self, entry: str, values: Array) -> Array:
        outcome = self.outcomes[entry]
        shifted: Array = (values.astype(np.int32) + outcome.zero_point_shift).astype(outcome.dtype)
        return shifted

    def _from_file(self, entry: str, values: Array) -> Array:
        integers: Array = (values.astype(np.int32) - self.outcomes[entry].zero_point_shift).astype(self.dtypes[entry])
        return integers.reshape(len(values), *self.shapes[entry])


def cut(data: bytes, report: ContractReport, contract: QuantizationContract, recorded: Mapping[str, Array]) -> Layers:
    """Cut a file at every activation entry that it holds and ``recorded`` has integers for.

    Raises:
        IntegrityError: The bytes are no ONNX model, or lack a tensor that the report names.
        DataError: ``recorded`` does not fit the contract.
    """
    model = _parse(data)
    entries = {entry.name: entry for entry in contract.activations}
    outcomes = {name: outcome for name, outcome in report.tensors.items() if name in entries}
    for name in set(outcomes) & set(recorded):
        _check(entries[name], recorded[name])
    tensors: dict[str, str] = {}
    for name, outcome in outcomes.items():
        if name in recorded:
            tensors.setdefault(outcome.tensor, name)
    computed = {output for node in model.graph.node for output in node.output}
    _check_tensors(model, outcomes, computed)
    fed = {f"{_FRESH}{tensor}": name for tensor, name in tensors.items()}
    _rewire(model, {tensor: entries[name].shape for tensor, name in tensors.items()}, outcomes, tensors)
    computed -= _reading_model_inputs(model, set(fed))
    made = {name: o.tensor for name, o in outcomes.items() if entries[name].role != "input" and o.tensor in computed}
    _set_outputs(model, list(dict.fromkeys(made.values())), {o.tensor: o.dtype for o in outcomes.values()})
    shapes = {name: entry.shape for name, entry in entries.items()}
    dtypes = {name: entry.dtype for name, entry in entries.items()}
    return Layers(model.SerializeToString(), fed, made, outcomes, shapes, dtypes)


def _parse(data: bytes) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load_model_from_string(data)
    except Exception as reason:  # protobuf's own, which has no typed name
        raise IntegrityError(
            "The artifact is not an ONNX file; layers can be replayed from .onnx only. Export again."
        ) from reason


def _check(entry: TensorQuantization, values: Array) -> None:
    if values.dtype != np.dtype(entry.dtype) or values.shape[1:] != entry.shape:
        raise DataError(
            f"Recorded integers of '{entry.name}' are {values.dtype} {list(values.shape)};"
            f" expected {entry.dtype} {['S', *entry.shape]} on the contract's grid."
        )


def _check_tensors(model: onnx.ModelProto, outcomes: Mapping[str, EntryOutcome], computed: set[str]) -> None:
    known = computed | {value.name for value in model.graph.input}
    for name, outcome in outcomes.items():
        if outcome.tensor not in known:
            raise IntegrityError(
                f"The file has no tensor '{outcome.tensor}', which the contract report names for '{name}'. Export again."
            )


def _rewire(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    outcomes: Mapping[str, EntryOutcome],
    tensors: Mapping[str, str],
) -> None:
    """Let every reader of a cut tensor read its fresh input."""
    import onnx.helper

    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name in tensors:
                node.input[position] = f"{_FRESH}{name}"
    for tensor, entry in tensors.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(outcomes[entry].dtype))
        model.graph.input.append(onnx.helper.make_tensor_value_info(f"{_FRESH}{tensor}", kind, shapes[tensor]))


def _reading_model_inputs(model: onnx.ModelProto, fed: set[str]) -> set[str]:
    """Tensors that still depend on an input of the whole model (an index, or a float layer at the start): nothing feeds them."""
    tainted = {value.name for value in model.graph.input} - fed
    for node in model.graph.node:
        if any(name in tainted for name in node.input):
            tainted.update(node.output)
    return tainted


def _set_outputs(model: onnx.ModelProto, names: list[str], dtypes: Mapping[str, str]) -> None:
    """Make ``names`` the only outputs, and drop nodes and inputs that none of them needs."""
    import onnx.helper

    needed, kept = set(names), []
    for node in reversed(model.graph.node):
        if any(output in needed for output in node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    inputs = [value for value in model.graph.input if value.name in needed]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    del model.graph.output[:]
    for name in names:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtypes[name]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    del model.graph.value_info[:]
