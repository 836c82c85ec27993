"""Program -> ``program.pt2``: torch's own exported program, with the contract's quantize and dequantize operators.

What ExecuTorch, AOTInductor and other tools of PyTorch 2 take. The names of inputs and outputs travel inside the file.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.contract import ContractReport
from edgekit.core.files import sha256, write_bytes
from edgekit.core.program import load_program, register_operators
from edgekit.core.run import tool_versions

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import QuantizationContract, TensorQuantization

__all__ = ["CONVERTER", "EDGES", "TorchExportConverter", "edges_of"]

EDGES = "edgekit.json"
"""Extra file inside the archive: inputs and outputs in order."""


class TorchExportConverter:
    """Program -> ``program.pt2``."""

    name = "torch-export"
    kind = "serving"
    extra = "all"
    modules = ("torch",)
    hides = ("tensorflow", "keras", "onnx", "onnxruntime", "coremltools", "litert_torch", "ai_edge_litert", "jax")

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write the file into ``output`` and say what became of every contract entry."""
        import torch

        register_operators()
        archive = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(compressed.program, archive, extra_files={EDGES: edges_of(compressed)})
        path = output / "program.pt2"
        write_bytes(path, archive.getvalue())
        return Artifact(
            target=self.name,
            path=path,
            sha256=sha256(path),
            size_bytes=path.stat().st_size,
            precision=compressed.precision,
            inputs=compressed.record.inputs,
            outputs=compressed.record.outputs,
            labels=compressed.record.labels,
            preprocessing=compressed.record.preprocessing,
            contract_report=_report(load_program(path), compressed.contract),
            versions=tool_versions(),
            options=options,
            notes=(),
        )


CONVERTER = TorchExportConverter()


def edges_of(compressed: Compressed) -> str:
    """Inputs and outputs of a program as JSON."""
    record = compressed.record
    sides = {"inputs": record.inputs, "outputs": record.outputs}
    return json.dumps({side: [spec.model_dump(mode="json") for spec in specs] for side, specs in sides.items()})


def _report(program: ExportedProgram, contract: QuantizationContract) -> ContractReport:
    """The contract in the saved program: quantize nodes with their numbers, constants with their digests."""
    from edgekit.converters.serving_report import read_back

    nodes = {node.name: node for node in program.graph.nodes}
    held = {**program.constants, **program.state_dict}
    constants = {name: value.detach().cpu().numpy() for name, value in held.items() if hasattr(value, "detach")}

    def stands(entry: TensorQuantization) -> bool:
        node = nodes.get(entry.node)
        if node is None or not str(node.target).startswith("quantized_decomposed.quantize_per_tensor"):
            return False
        wanted = (entry.scale[0], entry.zero_point[0], entry.minimum, entry.maximum)
        return tuple(node.args[1:5]) == wanted

    exact = {entry.name: entry.node for entry in contract.activations if stands(entry)}
    return read_back(contract, constants=constants, scales=(), exact=exact)
