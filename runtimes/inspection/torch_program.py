"""What a ``.pt2`` holds: the operators of an exported program, with the line of the model's code each comes from."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.damage import explaining_damage
from edgekit.core.files import sha256
from edgekit.core.listing import Arithmetic, Constant, Listing, Operation, Value, constant_of, with_sizes

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.core.tensors import Array

__all__ = ["INSPECTOR", "Pt2Inspector"]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_DEQUANTIZES = re.compile(r"^dequantize_per_(tensor|channel)")


class Pt2Inspector:
    """Programs written by ``torch.export.save``."""

    name = "pt2"
    runtime = "torch"
    extra = ""
    modules = ("torch",)
    hides = ("tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the name ends in ``.pt2`` and the file is a zip."""
        return path.suffix == ".pt2" and path.is_file() and zipfile.is_zipfile(path)

    def inspect(self, path: Path, *, kept: dict[str, Array] | None = None) -> Listing:
        """List the program's nodes and tensors.

        Raises:
            IntegrityError: torch cannot read the file.
        """
        with explaining_damage(path):
            return self._list(path, kept)

    def _list(self, path: Path, kept: dict[str, Array] | None) -> Listing:
        import torch

        from edgekit.core.program import load_program

        program = load_program(path)
        constants, owners = _constants(program, kept)
        operations = _operations(program, constants, owners)
        macs = sum(operation.macs for operation in operations)
        integer = sum(operation.macs for operation in operations if operation.arithmetic == "integer")
        return Listing(
            path=str(path),
            format=self.name,
            sha256=sha256(path),
            size_bytes=path.stat().st_size,
            inputs=tuple(_value(node) for node in _named(program, program.graph_signature.user_inputs)),
            outputs=tuple(_value(node) for node in _named(program, program.graph_signature.user_outputs)),
            operations=operations,
            constants=tuple(constants.values()),
            versions={"torch": torch.__version__, "dialect": program.dialect},
            integer_mac_share=integer / macs if macs else None,
            method="operators between dequantize and quantize nodes",
        )


INSPECTOR = Pt2Inspector()


def _named(program: ExportedProgram, names: Any) -> list[Node]:
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name] for name in names if name in nodes]


def _constants(program: ExportedProgram, kept: dict[str, Array] | None) -> tuple[dict[str, Constant], dict[str, str]]:
    """Stored tensors by name, and the name behind each placeholder."""
    signature = program.graph_signature
    stored = {**program.constants, **program.state_dict}
    owners = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    found = {}
    for name in owners.values():
        tensor = stored.get(name)
        if tensor is not None and hasattr(tensor, "detach"):
            found[name] = constant_of(name, _numbers(tensor), dtype=str(tensor.dtype).removeprefix("torch."), kept=kept)
    return found, owners


def _numbers(tensor: torch.Tensor) -> Any:
    import torch

    plain = tensor.detach().cpu()
    return plain.float().numpy() if plain.dtype == torch.bfloat16 else plain.numpy()


def _operations(program: ExportedProgram, constants: dict[str, Constant], owners: dict[str, str]) -> tuple[Operation, ...]:
    from edgekit.core.program_cost import MULTIPLIES, node_macs, operator_name

    found = []
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        reads = [owners.get(source.name, source.name) for source in node.all_input_nodes]
        multiplies = operator_name(node) in MULTIPLIES
        found.append(
            Operation(
                name=node.name,
                op=str(node.target),
                inputs=tuple(reads),
                outputs=tuple(_values(node)),
                macs=node_macs(node) if multiplies else 0,
                arithmetic=_arithmetic(node) if multiplies else "",
                source=_line(node),
            )
        )
    return with_sizes(found, constants)


def _arithmetic(node: Node) -> Arithmetic:
    from edgekit.core.program_cost import operator_name

    data, readers = node.all_input_nodes[:1], list(node.users)
    comes = bool(data) and bool(_DEQUANTIZES.match(operator_name(data[0])))
    goes = any(operator_name(reader).startswith("quantize_per_") for reader in _through_clamps(readers))
    return "integer" if comes and goes else "float"


def _through_clamps(readers: list[Node]) -> list[Node]:
    """The readers, and those behind an activation that is fused."""
    from edgekit.core.program_cost import operator_name

    behind = [
        user for reader in readers if operator_name(reader) in {"relu", "relu6", "hardtanh", "clamp"} for user in reader.users
    ]
    return [*readers, *behind]


def _values(node: Node) -> list[Value]:
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        return [_described(f"{node.name}[{at}]", part) for at, part in enumerate(value) if hasattr(part, "shape")]
    return [_described(node.name, value)] if hasattr(value, "shape") else []


def _value(node: Node) -> Value:
    return _described(node.name, node.meta.get("val"))


def _described(name: str, value: Any) -> Value:
    shape = tuple(int(size) if isinstance(size, int | np.integer) else None for size in getattr(value, "shape", ()))
    return Value(name=name, shape=shape, dtype=str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch."))


def _line(node: Node) -> str:
    """``file.py:12`` of the innermost frame that is not torch's own."""
    frames = _FRAME.findall(str(node.meta.get("stack_trace") or ""))
    own = [(file, line) for file, line in frames if "/torch/" not in file]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""
