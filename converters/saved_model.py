"""Program -> TensorFlow SavedModel, for TensorFlow Serving and whatever else loads one.

::

    program ─ Q/DQ written out ─> litert_torch ─> StableHLO ─> XlaCallModule in a tf.function ─> saved_model/
                                                     weights: tf.Variable, integers stay integers

The graph holds one operator, TensorFlow's own for a StableHLO module, so the numbers are XLA's. Weights are variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.compiler_settings import compiler_settings
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.contract import ContractReport
from edgekit.core.errors import ConversionError
from edgekit.core.files import sha256, size_bytes
from edgekit.core.run import tool_versions
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import QuantizationContract

__all__ = ["CONVERTER", "SIGNATURE", "SavedModelConverter"]

SIGNATURE = "serving_default"

_NUMBER = re.compile(r"dense<(-?\d[\d.]*(?:[eE][+-]?\d+)?)>")
_SETTINGS = {"LITERT_TORCH_SHOW_PROGRESS": "n", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}


class SavedModelConverter:
    """Program -> ``saved_model/``."""

    name = "saved-model"
    kind = "serving"
    extra = "tensorflow"
    modules = ("tensorflow", "litert_torch")
    hides = ("coremltools", "onnx", "onnxruntime", "onnxscript", "matplotlib", "pandas", "sklearn")

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write the folder into ``output`` and say what became of every contract entry.

        Raises:
            UnsupportedOpError: A layer quantizes its input at run time.
            ConversionError: An input's name cannot be one in TensorFlow, or StableHLO or TensorFlow refused the program.
        """
        from edgekit.converters.serving_report import NOTE

        _check_names(compressed)
        path = output / "saved_model"
        with compiler_settings(_SETTINGS):
            text = _save(compressed, path)
            report = _report(path, text, compressed.contract)
        return Artifact(
            target=self.name,
            path=path,
            sha256=sha256(path),
            size_bytes=size_bytes(path),
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


CONVERTER = SavedModelConverter()


def _check_names(compressed: Compressed) -> None:
    """Refuse names that TensorFlow would change without a word.

    Raises:
        ConversionError: Names the tensor.
    """
    for spec in compressed.record.inputs:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", spec.name):
            raise ConversionError(
                f"Input '{spec.name}' cannot be the name of a SavedModel's input: letters, digits and '_' only. Rename the"
                " argument of forward, or leave out the target saved-model."
            )


def _save(compressed: Compressed, path: Path) -> str:
    """Write the folder; the StableHLO module's text.

    Raises:
        ConversionError: StableHLO or TensorFlow refused the program.
    """
    from edgekit.converters.plain_arithmetic import plain_arithmetic

    program = plain_arithmetic(compressed.program, target="saved-model")
    try:
        import tensorflow as tf
        from litert_torch.backend.export import exported_program_to_mlir

        lowered: Any = exported_program_to_mlir(program, inline_constants=False)
        module = _served(lowered, compressed.record.inputs, compressed.record.outputs)
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve})
        return str(lowered.module.operation.get_asm())
    except Exception as reason:  # the compilers raise RuntimeError, ValueError, their own errors, ...
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
        raise ConversionError(
            f"'{compressed.name}' could not become a SavedModel: {type(reason).__name__}: {first}"
            " Leave out the target saved-model."
        ) from reason


def _served(lowered: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Any:
    """A module with one function from named inputs to named outputs, and the weights as its variables."""
    import tensorflow as tf
    from litert_torch.backend import tf_integration

    variables: Mapping[str, Any] = tf_integration._build_tf_state_dict(lowered)
    call = tf_integration._wrap_as_tf_func(lowered, variables)

    class Served(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.weights = list(variables.values())

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec(spec.shape, getattr(tf, spec.dtype), name=spec.name) for spec in inputs]
        )
        def serve(self, *given: Any) -> dict[str, Any]:
            answers = call(*given)
            made = answers if isinstance(answers, list | tuple) else [answers]
            return {spec.name: tf.cast(answer, getattr(tf, spec.dtype)) for spec, answer in zip(outputs, made, strict=True)}

    return Served()


def _report(path: Path, text: str, contract: QuantizationContract) -> ContractReport:
    """Weights as the written checkpoint has them; scales as they stand in the module's text."""
    import tensorflow as tf

    from edgekit.converters.serving_report import read_back

    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("weights/")]
    return read_back(
        contract,
        constants={name: reader.get_tensor(name) for name in sorted(names)},
        scales=(float(number) for number in _NUMBER.findall(text)),
    )
