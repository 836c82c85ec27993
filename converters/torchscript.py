"""Program -> ``model.ts``: TorchScript for libtorch, the C++ and mobile builds of PyTorch, and TorchServe.

Traced from the program with the quantize and dequantize operators written out (:mod:`edgekit.converters.plain_arithmetic`): it
needs no Python to run. Float programs are frozen too; freezing would compute the float weights of a quantized one.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.contract import ContractReport
from edgekit.core.errors import ConversionError
from edgekit.core.files import sha256, write_bytes
from edgekit.core.run import tool_versions

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import QuantizationContract

__all__ = ["CONVERTER", "TorchScriptConverter"]


class TorchScriptConverter:
    """Program -> ``model.ts``."""

    name = "torchscript"
    kind = "serving"
    extra = "all"
    modules = ("torch",)
    hides = ("tensorflow", "keras", "onnx", "onnxruntime", "coremltools", "litert_torch", "ai_edge_litert", "jax")

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write the file into ``output`` and say what became of every contract entry.

        Raises:
            UnsupportedOpError: A layer quantizes its input at run time.
            ConversionError: torch could not script the program.
        """
        from edgekit.converters.serving_report import NOTE
        from edgekit.converters.torch_export import EDGES, edges_of

        path = output / "model.ts"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, and says so at every step
            script = _script(compressed)
            write_bytes(path, _archive(script, {EDGES: edges_of(compressed)}))
            report = _report(path, compressed.contract)
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
            contract_report=report,
            versions=tool_versions(),
            options=options,
            notes=(NOTE,) if compressed.contract.activations else (),
        )


CONVERTER = TorchScriptConverter()


def _script(compressed: Compressed) -> Any:
    """The traced and frozen program.

    Raises:
        ConversionError: torch could not trace it.
    """
    import torch

    from edgekit.converters.plain_arithmetic import plain_arithmetic

    exported: Any = plain_arithmetic(compressed.program, target="torchscript").module(check_guards=False)
    module = torch.fx.GraphModule(exported, exported.graph)  # the exported one refuses eval(), which freezing calls
    example = tuple(torch.from_numpy(compressed.golden.inputs[spec.name][0]) for spec in compressed.record.inputs)
    try:
        with torch.no_grad():
            jit: Any = torch.jit  # it has no types
            traced = jit.trace(_Flat(module), example, check_trace=False, strict=False)
            script = traced.eval()
            return script if compressed.contract.entries else torch.jit.freeze(script, optimize_numerics=False)
    except Exception as reason:  # what operators raise while they are traced is of any type
        first = next((line for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
        raise ConversionError(
            f"torch could not script '{compressed.name}': {type(reason).__name__}: {first} Leave out the target torchscript."
        ) from reason


def _Flat(module: Any) -> Any:  # noqa: N802  a class that torch must be imported for
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = module

        def forward(self, *inputs: torch.Tensor) -> Any:
            answers = self.program(*inputs)
            return answers[0] if isinstance(answers, tuple | list) and len(answers) == 1 else answers

    return Flat().eval()


def _archive(script: Any, extra: dict[str, str]) -> bytes:
    import torch

    archive = io.BytesIO()
    torch.jit.save(script, archive, _extra_files=extra)
    return archive.getvalue()


def _report(path: Path, contract: QuantizationContract) -> ContractReport:
    """Weights of the saved script, and the numbers of its graph."""
    import torch

    from edgekit.converters.serving_report import read_back

    jit: Any = torch.jit  # it has no types
    loaded = jit.load(io.BytesIO(path.read_bytes()))
    graph = loaded.inlined_graph  # its nodes do not keep it
    values = [node.output().toIValue() for node in graph.findAllNodes("prim::Constant")]
    numbers = {float(v) for v in values if isinstance(v, float) or (isinstance(v, torch.Tensor) and v.numel() == 1)}
    weights = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    return read_back(contract, constants={name: value.detach().numpy() for name, value in weights.items()}, scales=numbers)
