"""``.pt2``: programs written by ``torch.export.save``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.sources.archives import check_archive
from edgekit.core.errors import CaptureError
from edgekit.core.file_kinds import PT2, kind_of
from edgekit.core.source import ImportedModel, OpenInput, SourceOptions, read_samples, settle_inputs
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

__all__ = ["SOURCE", "Pt2Source"]


class Pt2Source:
    """A program as ``torch.export.save`` writes it: a zip that holds the graph as JSON."""

    name = "pt2"
    extra = ""
    modules = ("torch",)
    hides = ("tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the name ends in ``.pt2`` and the file is a zip that holds a program."""
        return path.suffix == ".pt2" and path.is_file() and kind_of(path) is PT2

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the program; sizes it leaves open are fixed, nested inputs and outputs become flat.

        Raises:
            IntegrityError: torch cannot read the file.
            CaptureError: Its inputs or outputs are no plain tensors.
            UsageError: A size is open that the options must say.
        """
        from edgekit.converters.sources.trace import check_weights, trace_module
        from edgekit.core.program import load_program

        check_archive(path)
        program = load_program(path)
        check_weights(program.state_dict, str(path))
        declared = _declared(program, path)
        inputs, notes = settle_inputs(declared, options=options, where=str(path))
        if any(None in (one.shape or ()) for one in declared) or not _is_flat(program):
            program, _ = trace_module(_flat(program), inputs, where=str(path))
        outputs = _outputs(program, path)
        return ImportedModel(
            program=program, inputs=inputs, outputs=outputs, samples=read_samples(options, inputs), notes=tuple(notes)
        )


SOURCE = Pt2Source()


def _declared(program: ExportedProgram, path: Path) -> list[OpenInput]:
    return [
        OpenInput(
            name=name,
            shape=tuple(size if isinstance(size, int) else None for size in value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
        )
        for name, value in _values(program, "user_inputs", path)
    ]


def _outputs(program: ExportedProgram, path: Path) -> tuple[TensorSpec, ...]:
    values = _values(program, "user_outputs", path)
    names = ["output"] if len(values) == 1 else [f"output_{at}" for at in range(len(values))]
    return tuple(
        TensorSpec.parse(
            {"name": name, "shape": tuple(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}, source=str(path)
        )
        for name, (_, value) in zip(names, values, strict=True)
    )


def _values(program: ExportedProgram, kind: str, path: Path) -> list[tuple[str, Any]]:
    """Names and fake tensors of the program's inputs or outputs."""
    nodes = {node.name: node for node in program.graph.nodes}
    names: Any = getattr(program.graph_signature, kind)
    values = [(name, nodes[name].meta.get("val") if name in nodes else None) for name in names]
    for name, value in values:
        if value is None or not hasattr(value, "shape"):
            raise CaptureError(f"{path}: '{name}' is no tensor. Export the model with plain tensors as inputs and outputs.")
    return values


def _is_flat(program: ExportedProgram) -> bool:
    """Whether it is called with tensors in order, and returns a tensor or a tuple of tensors."""
    given, returned = program.call_spec.in_spec, program.call_spec.out_spec
    if given is None or returned is None:
        return True
    arguments, named = given.children()
    return (
        not named.children()
        and all(child.is_leaf() for child in arguments.children())
        and (returned.is_leaf() or (returned.type is tuple and all(child.is_leaf() for child in returned.children())))
    )


def _flat(program: ExportedProgram) -> torch.nn.Module:
    import torch
    from torch.utils import _pytree

    class Flat(torch.nn.Module):
        """Calls the program with nested arguments made of flat ones."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module(check_guards=False)

        def forward(self, *arrays: torch.Tensor) -> Any:
            given = program.call_spec.in_spec
            arguments, named = (arrays, {}) if given is None else _pytree.tree_unflatten(list(arrays), given)
            result, _ = _pytree.tree_flatten(self.program(*arguments, **named))
            return tuple(result)

    return Flat()
