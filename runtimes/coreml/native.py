"""Core ML itself, on macOS, through coremltools: Neural Engine, GPU or CPU as Core ML decides.

Core ML chooses its own threads: the ``threads`` argument is accepted for the interface and has no effect.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import DeviceError, IntegrityError, UsageError
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import check_inputs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array, TensorSpec
    from edgekit.runtimes.coreml.program import Program

__all__ = ["RUNTIME", "NativeRuntime", "NativeSession"]

_COMPUTE_UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "neural-engine": "CPU_AND_NE"}

OPTIONS = (
    RuntimeOption(
        name="provider", kind="choice", default="all", values=tuple(_COMPUTE_UNITS),
        meaning="Compute units Core ML may use; the processor is always one of them.",
    ),
)  # fmt: skip
"""Options of ``load``."""


class NativeSession:
    """A model Core ML has compiled.

    Args:
        model: ``coremltools.models.MLModel``.
        inputs: Its inputs.
        outputs: Its outputs.
        program: Says which inputs are images, and which output is a dictionary by class name.
    """

    def __init__(
        self, model: Any, *, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], program: Program | None = None
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._model = model
        self._images = program.images if program is not None else {}
        self._classifier = program.classifier if program is not None else None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong.
            UsageError: The session was closed.
        """
        import numpy as np

        if self._model is None:
            raise UsageError("This Core ML session was closed; load the model again.")
        check_inputs(inputs, self.inputs)
        results = dict(self._model.predict({name: self._feature(name, values) for name, values in inputs.items()}))
        if self._classifier is not None:
            by_class = results[self._classifier.probabilities]
            results[self._classifier.scores] = [by_class[name] for name in self._classifier.classes]
        return {spec.name: np.asarray(results[spec.name]).reshape(spec.shape).astype(spec.dtype) for spec in self.outputs}

    def _feature(self, name: str, values: Array) -> Any:
        """An input as coremltools wants it; images are Pillow's, whatever their colour space in the package."""
        if name not in self._images:
            return values
        from PIL import Image

        return Image.fromarray(values[0, :, :, 0] if values.shape[-1] == 1 else values[0])

    def close(self) -> None:
        """Free the model."""
        self._model = None


class NativeRuntime:
    """Core ML on macOS."""

    name = "coreml"
    extra = "coreml"
    modules = ("coremltools",)
    hides = ("tensorflow", "onnx", "onnxruntime", "keras", "ai_edge_litert", "litert_torch")
    target = "coreml"
    systems = ("Darwin",)
    """Operating systems it works on."""
    options = OPTIONS

    def version(self) -> str:
        """Versions of macOS, whose Core ML runs the model, and coremltools."""
        system = platform.mac_ver()[0] or f"no macOS, {platform.system()}"
        return f"Core ML of macOS {system}, coremltools {metadata.version('coremltools')}"

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> NativeSession:  # noqa: ARG002
        """Compile and load a package.

        Args:
            path: The ``.mlpackage`` folder.
            threads: No effect: Core ML chooses.
            options: Values of :data:`OPTIONS`.

        Raises:
            DeviceError: This is not macOS.
            IntegrityError: Core ML cannot load the package.
            UsageError: An option is unknown.
        """
        from edgekit.runtimes.coreml.package import read_package

        units = _COMPUTE_UNITS[read_settings(options, OPTIONS, runtime="Core ML")["provider"]]
        _need_macos()
        program = read_package(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coremltools warns about versions of frameworks it could convert from
            import coremltools

            try:
                model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit[units])
            except Exception as reason:
                raise IntegrityError(f"Core ML cannot load {path}: {reason}") from reason
        return NativeSession(model, inputs=program.inputs, outputs=program.outputs, program=program)

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Run every quantized layer of the package alone, fed the compressed program's integers.

        A copy of the package that is cut at every integer activation is loaded once, and run once per sample.
        See :meth:`edgekit.core.plugins.Runtime.replay_layers`.
        """
        from edgekit.runtimes.coreml.replay import replay_cut

        _need_macos()
        with tempfile.TemporaryDirectory(prefix="edgekit-coreml-") as scratch:
            cut = Path(scratch, "cut.mlpackage")
            return replay_cut(self.load, artifact.path, cut, artifact.contract_report, contract, recorded, threads=threads)


def _need_macos() -> None:
    if sys.platform != "darwin":
        raise DeviceError(
            f"Core ML runs on macOS only, and this is {platform.system()} {platform.machine()}. Run on a Mac, or use the runtime"
            " 'coreml-reference' (reference semantics, not the Neural Engine) here."
        )


RUNTIME = NativeRuntime()
