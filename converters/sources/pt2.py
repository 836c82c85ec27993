"""``.pt2``: programs written by ``torch.export.save``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import CaptureError
from edgekit.core.source import ImportedModel, SourceOptions, random_samples
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["SOURCE", "Pt2Source"]


class Pt2Source:
    """A program as ``torch.export.save`` writes it: a zip that holds the graph as JSON."""

    name = "pt2"
    extra = ""
    modules = ("torch",)
    hides = ("tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the name ends in ``.pt2`` and the file is a zip."""
        return path.suffix == ".pt2" and path.is_file() and zipfile.is_zipfile(path)

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the program.

        Raises:
            IntegrityError: torch cannot read the file.
            CaptureError: Its inputs or outputs are no plain tensors.
        """
        from edgekit.core.program import load_program

        del options
        program = load_program(path)
        inputs = _specs(program, "user_inputs", path)
        return ImportedModel(
            program=program, inputs=inputs, outputs=_specs(program, "user_outputs", path), samples=random_samples(inputs)
        )


SOURCE = Pt2Source()


def _specs(program: ExportedProgram, kind: str, path: Path) -> tuple[TensorSpec, ...]:
    nodes = {node.name: node for node in program.graph.nodes}
    names: Any = getattr(program.graph_signature, kind)
    specs = []
    for at, name in enumerate(names):
        value = nodes[name].meta.get("val") if name in nodes else None
        if value is None or not hasattr(value, "shape"):
            raise CaptureError(f"{path}: '{name}' is no tensor. Export the model with plain tensors as inputs and outputs.")
        shown = name if kind == "user_inputs" else ("output" if len(names) == 1 else f"output_{at}")
        dtype = str(value.dtype).removeprefix("torch.")
        specs.append(TensorSpec.parse({"name": shown, "shape": tuple(value.shape), "dtype": dtype}, source=str(path)))
    return tuple(specs)
