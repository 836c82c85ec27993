"""The compressed program itself, run by torch: the reference that every artifact is compared with.

Quantized operators compute in float32 between dequantize and quantize, exactly as the program's graph says.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.compressed import CompressedRecord
from edgekit.core.errors import DataError, IntegrityError
from edgekit.core.program import load_program
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import DType, TensorSpec, check_inputs

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array

__all__ = ["RUNTIME", "TorchRuntime", "TorchSession", "record_layers"]


class TorchSession:
    """A program in torch.

    Args:
        program: The loaded program.
        inputs: Its inputs in order.
        outputs: Its outputs in order.
    """

    def __init__(self, program: ExportedProgram, *, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._module: torch.nn.Module | None = _with_restored_weights(program)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong, or the session is closed.
        """
        import torch

        check_inputs(inputs, self.inputs)
        if self._module is None:
            raise DataError("The session is closed. Load the program again.")
        with torch.inference_mode():
            result = self._module(*(_tensor(inputs[spec.name]) for spec in self.inputs))
        answers = tuple(result) if isinstance(result, tuple | list) else (result,)
        return {spec.name: answer.numpy() for spec, answer in zip(self.outputs, answers, strict=True)}

    def close(self) -> None:
        """Free the program."""
        self._module = None


class TorchRuntime:
    """Runs ``program.pt2`` and ``float.pt2`` of a compressed program's folder."""

    name = "torch"
    target = "torch"
    extra = "all"
    modules = ("torch",)
    hides = ("tensorflow", "keras", "coremltools", "onnxruntime", "litert_torch", "ai_edge_litert", "jax")
    options: tuple[RuntimeOption, ...] = ()

    def version(self) -> str:
        """Version of the installed torch."""
        return metadata.version("torch")

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> TorchSession:
        """Load a ``.pt2``; input and output names come from the ``compressed.json`` beside it, if there is one.

        ``threads`` holds for the whole process, as torch's setting does.

        Raises:
            IntegrityError: The file is missing, or not one torch can read.
            UsageError: An option was given; there are none.
        """
        import torch

        read_settings(options, self.options, runtime="The torch runtime")
        torch.set_num_threads(threads)
        program = _load(path)
        inputs, outputs = _edges(program, path)
        return TorchSession(program, inputs=inputs, outputs=outputs)

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Compute every quantized layer of the program again from recorded integers; see :class:`~edgekit.core.plugins.Runtime`.

        Raises:
            IntegrityError: The file cannot be read.
        """
        import torch

        torch.set_num_threads(threads)
        program = _load(artifact.path)
        fed = {entry.node: recorded[entry.name] for entry in contract.activations if entry.name in recorded}
        sample_count = len(next(iter(fed.values()))) if fed else 0
        entries = {entry.node: entry.name for entry in contract.activations if entry.role != "input"}
        rows = [_answers(program, {node: values[i] for node, values in fed.items()}) for i in range(sample_count)]
        return _stack(rows, entries)


RUNTIME = TorchRuntime()


def record_layers(path: Path, contract: QuantizationContract, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The integers at every quantize node of a running program.

    Args:
        path: ``program.pt2``.
        contract: Its contract.
        inputs: Input name -> ``[S, *shape]``, in the program's input order.

    Returns:
        Activation entry -> int8 ``[S, *entry.shape]``.

    Raises:
        IntegrityError: The file cannot be read, or is not the contract's program.
    """
    program = _load(path)
    entries = {entry.node: entry.name for entry in contract.activations}
    present = {node.name for node in program.graph.nodes}
    missing = [name for node, name in entries.items() if node not in present]
    if missing:
        raise IntegrityError(f"{path} has no node for the contract entries {missing[:3]}. Compress again.")
    names = [spec.name for spec in _edges(program, path)[0]]
    count = len(next(iter(inputs.values())))
    rows = [_record(program, [inputs[name][i] for name in names], set(entries)) for i in range(count)]
    return _stack(rows, entries)


def _load(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise IntegrityError(f"{path} does not exist. Compress again.")
    return load_program(path)


def _with_restored_weights(program: ExportedProgram) -> torch.nn.Module:
    """The program's module, its integer weights dequantized once instead of at every call: the same operator, the same bits."""
    import torch

    module: Any = program.module(check_guards=False)
    graph = module.graph
    for count, node in enumerate(list(graph.nodes)):
        sources = node.all_input_nodes
        is_weight = str(node.target) == "quantized_decomposed.dequantize_per_channel.default"
        if not is_weight or any(source.op != "get_attr" for source in sources):
            continue
        values = {source.name: operator.attrgetter(source.target)(module) for source in sources}
        with torch.no_grad():
            module.register_buffer(f"restored_weight_{count}", _call(node, values))
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(f"restored_weight_{count}"))
        graph.erase_node(node)
    module.recompile()
    return cast("torch.nn.Module", module)


def _tensor(array: Array) -> torch.Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _edges(program: ExportedProgram, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Names, shapes and types: as recorded beside the file, else as the graph has them."""
    beside = path.with_name("compressed.json")
    if beside.is_file():
        record = CompressedRecord.read_json(beside)
        return record.inputs, record.outputs
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = tuple(_spec(name, nodes[name]) for name in signature.user_inputs if isinstance(name, str))
    names = [name for name in signature.user_outputs if isinstance(name, str)]
    titles = ["output"] if len(names) == 1 else [f"output_{index}" for index in range(len(names))]
    return inputs, tuple(_spec(title, nodes[name]) for title, name in zip(titles, names, strict=True))


def _spec(name: str, node: torch.fx.Node) -> TensorSpec:
    value = node.meta["val"]
    return TensorSpec(
        name=name, shape=tuple(int(size) for size in value.shape), dtype=cast("DType", str(value.dtype).removeprefix("torch."))
    )


def _stack(rows: list[dict[str, Array]], entries: Mapping[str, str]) -> dict[str, Array]:
    import numpy as np

    return {name: np.stack([row[node] for row in rows]) for node, name in entries.items() if rows and node in rows[0]}


def _record(program: ExportedProgram, arguments: list[Array], wanted: set[str]) -> dict[str, Array]:
    """One run of the graph; the values of the ``wanted`` nodes."""
    found: dict[str, Array] = {}
    values = _constants(program)
    values.update(zip(program.graph_signature.user_inputs, map(_tensor, arguments), strict=True))
    for node, value in _execute(program, values, set()):
        if node in wanted:
            found[node] = value.numpy().copy()
    return found


def _answers(program: ExportedProgram, fed: Mapping[str, Array]) -> dict[str, Array]:
    """What each quantize node in ``fed`` computes where its readers read the fed integers instead; inputs are unknown."""
    computed: dict[str, Array] = {}
    for node, value in _execute(program, _constants(program), {str(name) for name in program.graph_signature.user_inputs}, fed):
        if node in fed:
            computed[node] = value.numpy().copy()
    return computed


def _constants(program: ExportedProgram) -> dict[Any, Any]:
    """Placeholder -> the parameter, buffer or constant it stands for."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    held = {**program.constants, **program.state_dict}
    return {node: held[name] for node, name in names.items()}


def _execute(
    program: ExportedProgram, values: dict[Any, Any], unknown: set[str], fed: Mapping[str, Array] | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Run the graph node by node, yielding ``(name, value)`` for each computed one.

    Args:
        program: The program.
        values: Values of placeholders by name; completed, and thinned out, as the graph runs.
        unknown: Placeholders without a value; what depends on them is left out.
        fed: Node -> integers its readers get instead of what it computes.
    """
    last_reader = {source.name: node.name for node in program.graph.nodes for source in node.all_input_nodes}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        sources = [source.name for source in node.all_input_nodes]
        if any(name in unknown for name in sources):
            unknown.add(node.name)
        else:
            values[node.name] = _call(node, values)
            yield node.name, values[node.name]
        if fed is not None and node.name in fed:
            values[node.name] = _tensor(fed[node.name])
            unknown.discard(node.name)
        for name in sources:  # memory holds one layer, not the whole net
            if last_reader[name] == node.name:
                values.pop(name, None)


def _call(node: torch.fx.Node, values: Mapping[Any, Any]) -> Any:
    import torch
    from torch.fx.node import map_arg

    arguments, keywords = map_arg((node.args, node.kwargs), lambda source: values[source.name])
    function = cast("Callable[..., Any]", node.target)
    with torch.inference_mode():
        return function(*arguments, **keywords)
