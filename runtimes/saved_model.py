"""Runs TensorFlow SavedModels on the processor, by their signature."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import DType, TensorSpec, check_inputs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array

__all__ = ["RUNTIME", "SavedModelRuntime", "SavedModelSession"]

_SIGNATURE = "serving_default"


class SavedModelSession:
    """A loaded signature.

    Args:
        loaded: What ``tensorflow.saved_model.load`` returned; it keeps the variables.
        source: Where it came from, for messages.
    """

    def __init__(self, loaded: Any, source: str) -> None:
        if _SIGNATURE not in loaded.signatures:
            raise IntegrityError(f"{source} has no signature '{_SIGNATURE}', only {', '.join(loaded.signatures) or 'none'}.")
        self._loaded = loaded
        self._call: Any = loaded.signatures[_SIGNATURE]
        _, named = self._call.structured_input_signature
        outputs = self._call.structured_outputs
        order = [argument.name.split(":")[0].removeprefix(f"{_SIGNATURE}_") for argument in self._call.inputs]
        self.inputs = tuple(_spec(name, named[name]) for name in sorted(named, key=lambda name: _place(order, name)))
        self.outputs = tuple(_spec(name, outputs[name]) for name in outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong, or the session is closed.
        """
        import tensorflow as tf

        check_inputs(inputs, self.inputs)
        if self._call is None:
            raise DataError("The session is closed. Load the model again.")
        answers = self._call(**{name: tf.constant(array) for name, array in inputs.items()})
        return {spec.name: answers[spec.name].numpy() for spec in self.outputs}

    def close(self) -> None:
        """Free the model."""
        self._loaded = self._call = None


class SavedModelRuntime:
    """TensorFlow on the processor."""

    name = "tensorflow"
    target = "saved-model"
    extra = "tensorflow"
    modules = ("tensorflow",)
    hides = ("torch", "keras", "coremltools", "onnx", "onnxruntime", "jax")
    options: tuple[RuntimeOption, ...] = ()

    def version(self) -> str:
        """Version of the installed TensorFlow."""
        for name in ("tensorflow-cpu", "tensorflow"):
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return "unknown"

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> SavedModelSession:
        """Load a folder that edgekit exported.

        ``threads`` holds for the whole process, as TensorFlow's setting does, and only where nothing ran in it before.

        Raises:
            IntegrityError: The folder is not one TensorFlow can read.
            UsageError: An option was given; there are none.
        """
        read_settings(options, self.options, runtime=f"Runtime '{self.name}'")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # it is too late for that once something ran
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return SavedModelSession(tf.saved_model.load(str(path)), str(path))
        except IntegrityError:
            raise
        except Exception as reason:
            first = next((line.strip() for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
            raise IntegrityError(f"{path} is not a SavedModel TensorFlow {self.version()} can read: {first}") from reason

    def replay_layers(
        self,
        artifact: Artifact,
        contract: QuantizationContract,  # noqa: ARG002  the protocol's arguments
        recorded: Mapping[str, Array],  # noqa: ARG002
        *,
        threads: int = 1,  # noqa: ARG002
    ) -> dict[str, Array]:
        """Not possible: the layers are one operator.

        Raises:
            UnsupportedOpError: Always.
        """
        raise UnsupportedOpError(
            f"{artifact.path.name}: layers of a SavedModel cannot be run alone. Compare its outputs instead."
        )


def _place(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(int(size) if size is not None else 1 for size in tensor.shape)
    return TensorSpec(name=name, shape=shape, dtype=cast("DType", tensor.dtype.name))


RUNTIME = SavedModelRuntime()
