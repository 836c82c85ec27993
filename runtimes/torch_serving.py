"""Runs exported programs and scripts of torch on the processor: the formats of general serving."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError
from edgekit.core.program import register_operators
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import TensorSpec, check_inputs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array

__all__ = ["EXPORT_RUNTIME", "SCRIPT_RUNTIME", "ServingSession", "TorchExportRuntime", "TorchScriptRuntime"]

_EDGES = "edgekit.json"


class ServingSession:
    """A module in torch.

    Args:
        module: Takes tensors in order.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    def __init__(self, module: Any, *, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._module = module

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong, or the session is closed.
        """
        import numpy as np
        import torch

        check_inputs(inputs, self.inputs)
        if self._module is None:
            raise DataError("The session is closed. Load the model again.")
        given = [torch.from_numpy(np.require(inputs[spec.name], requirements=["C", "W"])) for spec in self.inputs]
        with torch.no_grad():
            result = self._module(*given)
        answers = tuple(result) if isinstance(result, tuple | list) else (result,)
        return {spec.name: answer.numpy() for spec, answer in zip(self.outputs, answers, strict=True)}

    def close(self) -> None:
        """Free the module."""
        self._module = None


class TorchExportRuntime:
    """Runs ``program.pt2``."""

    name = "torch-export"
    target = "torch-export"
    extra = "all"
    modules = ("torch",)
    hides = ("tensorflow", "keras", "onnx", "onnxruntime", "coremltools", "litert_torch", "ai_edge_litert", "jax")
    options: tuple[RuntimeOption, ...] = ()

    def version(self) -> str:
        """Version of the installed torch."""
        return metadata.version("torch")

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> ServingSession:
        """Load a file that edgekit exported; only such ones: torch may run code from others.

        Raises:
            IntegrityError: The file is not one torch can read, or was not made by edgekit.
            UsageError: An option was given; there are none.
        """
        import torch

        read_settings(options, self.options, runtime=f"Runtime '{self.name}'")
        torch.set_num_threads(threads)
        register_operators()
        extra = {_EDGES: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra).module(check_guards=False)
        except Exception as reason:
            raise IntegrityError(f"{path} is not a program torch {self.version()} can read: {_first_line(reason)}") from reason
        inputs, outputs = _edges(extra[_EDGES], path)
        return ServingSession(module, inputs=inputs, outputs=outputs)

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Compute every quantized layer of the program again from recorded integers; see :mod:`edgekit.runtimes.torch`."""
        from edgekit.runtimes.torch import RUNTIME

        return RUNTIME.replay_layers(artifact, contract, recorded, threads=threads)


class TorchScriptRuntime:
    """Runs ``model.ts``."""

    name = "torchscript"
    target = "torchscript"
    extra = "all"
    modules = ("torch",)
    hides = TorchExportRuntime.hides
    options: tuple[RuntimeOption, ...] = ()

    def version(self) -> str:
        """Version of the installed torch."""
        return metadata.version("torch")

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> ServingSession:
        """Load a script that edgekit exported.

        Raises:
            IntegrityError: The file is not one torch can read, or was not made by edgekit.
            UsageError: An option was given; there are none.
        """
        import torch

        read_settings(options, self.options, runtime=f"Runtime '{self.name}'")
        torch.set_num_threads(threads)
        extra: dict[str, Any] = {_EDGES: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is deprecated, and says so
                jit: Any = torch.jit  # it has no types
                module = jit.load(io.BytesIO(path.read_bytes()), _extra_files=extra)
        except Exception as reason:
            raise IntegrityError(f"{path} is not a script torch {self.version()} can read: {_first_line(reason)}") from reason
        stored = extra[_EDGES]
        inputs, outputs = _edges(stored.decode() if isinstance(stored, bytes) else stored, path)
        return ServingSession(module, inputs=inputs, outputs=outputs)

    def replay_layers(
        self,
        artifact: Artifact,
        contract: QuantizationContract,  # noqa: ARG002  the protocol's arguments
        recorded: Mapping[str, Array],  # noqa: ARG002
        *,
        threads: int = 1,  # noqa: ARG002
    ) -> dict[str, Array]:
        """Not possible: a script's layers cannot be fed one by one.

        Raises:
            UnsupportedOpError: Always.
        """
        raise UnsupportedOpError(f"{artifact.path.name}: layers of a script cannot be run alone. Compare its outputs instead.")


EXPORT_RUNTIME = TorchExportRuntime()
SCRIPT_RUNTIME = TorchScriptRuntime()


def _edges(stored: str, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as the file names them."""
    try:
        data = json.loads(stored)
        sides = [tuple(TensorSpec.parse(row, source=str(path)) for row in data[side]) for side in ("inputs", "outputs")]
    except (ValueError, KeyError, TypeError, RecursionError) as reason:
        raise IntegrityError(
            f"{path} does not say what its inputs and outputs are called: it was not exported by edgekit, or was changed."
        ) from reason
    return sides[0], sides[1]


def _first_line(reason: Exception) -> str:
    return next((line.strip() for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
