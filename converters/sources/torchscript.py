"""TorchScript (``.pt``, ``.ts``): programs written by ``torch.jit.save``, through torch's own converter.

TorchScript is deprecated; ``TS2EPConverter`` turns its graph into a program of ``torch.export``. A file does not say what shapes
its inputs have.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.sources.archives import check_archive
from edgekit.core.errors import CaptureError, IntegrityError, UnsupportedOpError
from edgekit.core.file_kinds import TORCHSCRIPT, kind_of
from edgekit.core.source import ImportedModel, OpenInput, SourceOptions, read_samples, settle_inputs

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["SOURCE", "TorchScriptSource"]


class TorchScriptSource:
    """A traced or scripted program."""

    name = "torchscript"
    extra = ""
    modules = ("torch",)
    hides = ("tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the file is a zip that holds TorchScript code."""
        return path.is_file() and kind_of(path) is TORCHSCRIPT and path.suffix in TORCHSCRIPT.suffixes

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the program and convert it.

        Raises:
            IntegrityError: The archive is damaged or hostile.
            UsageError: Shapes are missing.
            UnsupportedOpError: Its code uses what has no counterpart in a program of ``torch.export``.
        """
        import torch

        from edgekit.converters.sources.cleaning import clean
        from edgekit.converters.sources.trace import check_weights, example_tensors, output_names, output_specs, tracing

        check_archive(path)
        try:
            module: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            module.eval()
        except Exception as reason:
            raise IntegrityError(f"{path} is not TorchScript that torch {torch.__version__} can read: {reason}") from reason
        check_weights(module.state_dict(), str(path))
        inputs, notes = settle_inputs(_declared(module, path), options=options, where=str(path))
        arguments = example_tensors(inputs)
        with tracing(str(path), "the model fails on inputs of these shapes"):
            names = output_names(module(*arguments), str(path))
        program = clean(_converted(module, arguments, path), arguments)
        outputs = output_specs(program, arguments, names)
        return ImportedModel(
            program=program, inputs=inputs, outputs=outputs, samples=read_samples(options, inputs), notes=tuple(notes)
        )


SOURCE = TorchScriptSource()


def _declared(module: Any, path: Path) -> list[OpenInput]:
    declared = []
    for argument in list(module.forward.schema.arguments)[1:]:
        if str(argument.type) == "Tensor":
            declared.append(OpenInput(name=argument.name))
        elif argument.default_value is None and not str(argument.type).startswith("Optional"):
            raise CaptureError(
                f"{path}: input '{argument.name}' is {argument.type}; a program for devices takes plain tensors."
                " Trace the model again with a wrapper that takes tensors."
            )
    return declared


def _converted(module: Any, arguments: tuple[Any, ...], path: Path) -> ExportedProgram:
    import warnings

    from torch._export.converter import TS2EPConverter

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TS2EPConverter(module, arguments).convert()
    except Exception as reason:
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), "")
        raise UnsupportedOpError(
            f"{path}: torch cannot turn this TorchScript program into an exported one. {type(reason).__name__}: {first}\n"
            "Export the original nn.Module with torch.export.export(...) and torch.export.save(...), or by a Task."
        ) from reason
