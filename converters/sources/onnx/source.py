"""``.onnx``: graphs of ONNX operators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import UnsupportedOpError
from edgekit.core.source import ImportedModel, SourceOptions, read_samples
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

    from edgekit.converters.sources.onnx.net import OnnxNet

__all__ = ["SOURCE", "OnnxSource", "build_net"]


class OnnxSource:
    """A graph of ONNX operators, opset 7 and later, with its weights in the file or beside it."""

    name = "onnx"
    extra = "onnx"
    modules = ("onnx", "torch")
    hides = (
        "tensorflow",
        "keras",
        "coremltools",
        "onnxruntime",
        "litert_torch",
        "ai_edge_litert",
        "jax",
        "transformers",
        "torchvision",
    )

    def recognises(self, path: Path) -> bool:
        """Whether the name ends in ``.onnx``."""
        return path.suffix == ".onnx" and path.is_file()

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the graph, fix its shapes, and write it in torch's operators.

        Raises:
            IntegrityError: The file is damaged, hostile, or no ONNX file.
            UnsupportedOpError: It holds an operator without a counterpart; names it and its node.
            UsageError: It leaves the shape of an input open, and the options do not say it.
            CaptureError: torch cannot export the result.
        """
        import torch

        from edgekit.converters.sources.onnx.file import read_model
        from edgekit.converters.sources.onnx.net import export_net

        net, inputs, outputs, notes = build_net(read_model(path), options=options, where=str(path))
        samples = read_samples(options, inputs)
        examples = [torch.from_numpy(samples[spec.name])[0] for spec in inputs]
        program = export_net(net, examples, [spec.name for spec in inputs])
        return ImportedModel(program=program, inputs=inputs, outputs=outputs, samples=samples, notes=tuple(notes))


SOURCE = OnnxSource()


def build_net(
    model: onnx.ModelProto, *, options: SourceOptions, where: str
) -> tuple[OnnxNet, tuple[TensorSpec, ...], tuple[TensorSpec, ...], list[str]]:
    """A valid model as a module of torch.

    Args:
        model: The model, with all its data.
        options: Shapes of inputs that the file leaves open.
        where: The file, for messages.

    Returns:
        The net, its inputs, its outputs, and what a user should know.

    Raises:
        UnsupportedOpError: An operator has no counterpart, or an output is no tensor.
    """
    import torch

    from edgekit.converters.sources.onnx.fusion import fuse
    from edgekit.converters.sources.onnx.inputs import EDGE_TYPES, fix_constants, inputs_of
    from edgekit.converters.sources.onnx.net import OnnxNet
    from edgekit.converters.sources.onnx.plan import Frame, Planner
    from edgekit.converters.sources.onnx.values import Value

    fixed = fix_constants(model.graph, options=options, where=where)
    inputs, notes = inputs_of(model.graph, options=options, where=where)
    planner = Planner(model)
    opsets = {("" if item.domain == "ai.onnx" else item.domain): item.version for item in model.opset_import}
    taken = [Value(spec.name, planner.fake(spec.shape, getattr(torch, spec.dtype))) for spec in inputs]
    results = planner.run_graph(model.graph, Frame(opsets, {value.name: value for value in taken}))
    outputs = []
    for proto, value in zip(model.graph.output, results, strict=True):
        if not isinstance(value, Value):
            raise UnsupportedOpError(f"{where}: output '{proto.name}' is no tensor. Export the model with tensors as outputs.")
        dtype = str(value.tensor.dtype).removeprefix("torch.")
        if dtype not in EDGE_TYPES:
            raise UnsupportedOpError(
                f"{where}: output '{proto.name}' is {dtype}; edgekit takes tensors of {', '.join(EDGE_TYPES)}."
            )
        shape = [int(size) for size in value.tensor.shape]
        outputs.append(TensorSpec.parse({"name": proto.name, "shape": shape, "dtype": dtype}, source=where))
    made = [value for value in results if isinstance(value, Value)]
    steps = fuse(planner, made)
    net = OnnxNet(steps, inputs=taken, outputs=made)
    kept = net.drop_unread_inputs()
    notes += [
        f"Input '{spec.name}' is read by nothing and was left out." for spec, read in zip(inputs, kept, strict=True) if not read
    ]
    inputs = tuple(spec for spec, read in zip(inputs, kept, strict=True) if read)
    return net, inputs, tuple(outputs), [*fixed, *notes, *planner.notes]
