"""TensorFlow SavedModel (a folder): through ``tf2onnx`` to ONNX in memory's place, then as any ONNX file.

tf2onnx knows TensorFlow's operators, folds batch norms and removes the transpositions around convolutions; its result goes
through edgekit's own reader of ONNX, whose checks hold here too. TensorFlow is in this worker and nowhere else.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.file_kinds import SAVED_MODEL, kind_of
from edgekit.core.source import ImportedModel, SourceOptions

__all__ = ["SOURCE", "SavedModelSource"]

_OPSET = 18
"""The newest tf2onnx 1.17 writes."""
_SIGNATURES = ("serving_default", "serve")


class SavedModelSource:
    """A model as ``tf.saved_model.save`` or Keras's ``model.export`` writes it."""

    name = "saved-model"
    extra = "tensorflow"
    modules = ("tensorflow", "tf2onnx", "onnx", "torch")
    hides = ("jax", "keras", "coremltools", "onnxruntime", "litert_torch", "ai_edge_litert")

    def recognises(self, path: Path) -> bool:
        """Whether the folder holds ``saved_model.pb``."""
        return path.is_dir() and kind_of(path) is SAVED_MODEL

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Read the folder's serving signature.

        Raises:
            IntegrityError: The folder is damaged, or holds links.
            UnsupportedOpError: An operator has no counterpart.
            UsageError: It has no serving signature, or shapes are missing.
        """
        from edgekit.converters.sources.onnx import SOURCE as ONNX

        links = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_symlink()]
        if links:
            raise IntegrityError(f"{path} holds links ({links[0]}), which may lead anywhere. Copy the files in their place.")
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, f"{path.name}.onnx")
            _write_onnx(_signature(path), file, path)
            return ONNX.read(file, options=options)


SOURCE = SavedModelSource()


def _signature(path: Path) -> Any:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as reason:
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), "")
        raise IntegrityError(f"{path} is no SavedModel TensorFlow {tf.__version__} can read: {first}") from reason
    known = dict(loaded.signatures)
    for name in (*_SIGNATURES, *known):
        if name in known:
            _keep_alive.append(loaded)
            return known[name]
    raise UsageError(
        f"{path} has no signature, so nothing says what its inputs are. Write it with model.export(...) (Keras) or"
        " tf.saved_model.save(model, path, signatures=...)."
    )


_keep_alive: list[Any] = []
"""A signature holds its variables weakly."""


def _write_onnx(function: Any, file: Path, path: Path) -> None:
    from tf2onnx import convert, tf_loader

    given = {name: tensor.name for name, tensor in _inputs(function).items()}
    returned = {name: tensor.name for name, tensor in function.structured_outputs.items()}
    names = {tensor: name for name, tensor in (*given.items(), *_results(function, returned).items())}
    try:
        graph = tf_loader.from_function(function, list(given.values()), list(_results(function, returned).values()))
        convert._convert_common(
            graph,
            name=path.name,
            input_names=list(given.values()),
            output_names=list(_results(function, returned).values()),
            opset=_OPSET,
            tensors_to_rename=names,
            custom_op_handlers={"Erfc": (_write_erfc, [])},
            output_path=str(file),
        )
    except Exception as reason:
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), "")
        raise UnsupportedOpError(
            f"{path}: tf2onnx cannot turn this SavedModel into ONNX. {type(reason).__name__}: {first}"
        ) from reason


def _write_erfc(graph: Any, node: Any, _name: str, _arguments: list[Any]) -> None:
    """``erfc(x)``, which TensorFlow's exact GELU is made of and ONNX lacks, as ``1 - erf(x)``."""
    import numpy as np

    (result,) = node.output
    (shape,), (dtype,) = node.output_shapes, node.output_dtypes
    source = node.input[0]
    graph.remove_node(node.name)
    one = graph.make_const(f"{node.name}_one", np.array(1.0, np.float32))
    erf = graph.make_node("Erf", [source], shapes=[shape], dtypes=[dtype])
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[result], shapes=[shape], dtypes=[dtype])


def _inputs(function: Any) -> dict[str, Any]:
    """The signature's own names -> its tensors, without the captured variables."""
    _, named = function.structured_input_signature
    tensors = {tensor.name.partition(":")[0]: tensor for tensor in function.inputs}
    return {name: tensors[spec.name if spec.name in tensors else name] for name, spec in named.items()}


def _results(function: Any, returned: dict[str, str]) -> dict[str, str]:
    """The signature's output names -> tensors; TensorFlow lists both sorted by name."""
    return dict(zip(sorted(returned), (tensor.name for tensor in function.outputs), strict=True))
