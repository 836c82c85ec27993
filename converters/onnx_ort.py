"""What ONNX Runtime makes of an ONNX file: the ``.ort`` format for small builds, and which kernels it chose.

``.ort`` is ONNX Runtime's own flatbuffer for reduced and mobile builds
(https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html). It holds a graph that is already
optimised, so what the optimiser would do for this processor alone must stay out of it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edgekit.core.errors import ConversionError

__all__ = ["NOTE", "chosen_kernels", "root_logger_kept", "write_ort"]

NOTE = (
    "model.ort is for small and mobile builds: its graph is optimised already, for every processor alike (fixed style,"
    " without the blocked NCHWc layouts of x86). On x86 use model.onnx: float models run faster from it, and integer ones"
    " stay exact on processors without VNNI."
)
_LAYOUT = "NchwcTransformer"  # writes x86-only blocked layouts into the graph
_logger = logging.getLogger(__name__)


def write_ort(model: Path) -> dict[str, Path]:
    """Write ``model.ort`` and its required-operators config beside ``model.onnx``.

    Returns:
        ``{"ort": …, "operators": …}``.

    Raises:
        ConversionError: ONNX Runtime refused the file.
    """
    chatter = io.StringIO()
    companions = {"ort": model.with_suffix(".ort"), "operators": model.with_suffix(".required_operators.config")}
    try:
        with (
            tempfile.TemporaryDirectory(dir=model.parent) as folder,
            contextlib.redirect_stdout(chatter),
            root_logger_kept(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ResourceWarning)  # the tool leaves the closing of its file to Python
            from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

            source = Path(folder) / model.name
            source.write_bytes(_without_int4(model.read_bytes()))
            convert_onnx_models_to_ort(source, optimization_styles=[OptimizationStyle.Fixed])
            for path in companions.values():
                (Path(folder) / path.name).replace(path)
    except Exception as reason:
        raise ConversionError(f"ONNX Runtime cannot store {model.name} in its .ort format: {reason}") from reason
    finally:
        _logger.debug("%s", chatter.getvalue())
    return companions


def _without_int4(data: bytes) -> bytes:
    """The model with int4 constants as int8, which is what its format has (``onnxruntime/core/flatbuffers/schema/ort.fbs``)."""
    import onnx
    import onnx.numpy_helper

    model = onnx.load_model_from_string(data)
    packed = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT4]
    for tensor in packed:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype("int8"), tensor.name))
    return model.SerializeToString() if packed else data


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Importing the conversion tool calls ``logging.basicConfig``, which does nothing where the root has a handler."""
    root, placeholder = logging.getLogger(), logging.NullHandler()
    root.addHandler(placeholder)
    try:
        yield
    finally:
        root.removeHandler(placeholder)


def chosen_kernels(model: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime executes on this machine, by type, after all its optimisations.

    Raises:
        ConversionError: ONNX Runtime refused the file.
    """
    import onnx
    import onnxruntime

    path = model.with_name(f".{model.name}.optimised.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4  # it warns that such a file is for this machine only, which is why it is deleted
    try:
        onnxruntime.InferenceSession(
            model.read_bytes(), options, providers=["CPUExecutionProvider"], disabled_optimizers=[_LAYOUT]
        )
        return Counter(node.op_type for node in onnx.load(path).graph.node)
    except Exception as reason:
        raise ConversionError(f"ONNX Runtime cannot load the model it was given: {reason}") from reason
    finally:
        path.unlink(missing_ok=True)
