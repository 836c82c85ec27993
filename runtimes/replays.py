"""Every way to run an artifact's layers here: each runtime with each of its kernel sets, and the rounding rules it goes by.

=================== ======== ============================ ==================================
executor            target   kernels                      rules
=================== ======== ============================ ==================================
ONNX Runtime        onnx     fused, optimiser on          ONNX Runtime (x86)
LiteRT XNNPACK      tflite   what ships                   XNNPACK
TFLite built-in     tflite   TFLite's optimised kernels   TFLite built-in kernels
TFLite reference    tflite   TFLite's plainest kernels    TFLite reference kernels
Core ML reference   coreml   the reference executor       none: float arithmetic in torch
=================== ======== ============================ ==================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array

    Replayer = Callable[[Artifact, QuantizationContract, Mapping[str, Array]], dict[str, Array]]

__all__ = ["EXECUTORS", "Executor", "simulate_coreml"]


@dataclasses.dataclass(frozen=True)
class Executor:
    """One runtime with one of its kernel sets.

    Args:
        name: For people.
        target: The target whose files it runs.
        runtime: The runtime's entry-point name.
        rules: Name of its rounding rules; empty where it computes in float.
        replay: Runs every layer of an artifact on given integers; see :meth:`~edgekit.core.plugins.Runtime.replay_layers`.
    """

    name: str
    target: str
    runtime: str
    rules: str
    replay: Replayer


def _onnxruntime(artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array]) -> dict[str, Array]:
    from edgekit.runtimes.onnxruntime import RUNTIME

    return RUNTIME.replay_layers(artifact, contract, recorded)


def _litert(provider: str) -> Replayer:
    def run(artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array]) -> dict[str, Array]:
        from edgekit.runtimes.litert import make_interpreter, read_model
        from edgekit.runtimes.litert_replay import Replay

        data = read_model(artifact.path)
        make_interpreter(data, str(artifact.path), threads=1)  # refuses a damaged file before Python reads it unverified
        layers = Replay(data, artifact.contract_report, contract, recorded)
        source = f"{artifact.path}, cut into layers"
        return layers.run(make_interpreter(layers.model, source, threads=1, provider=provider))

    return run


def _coreml(precision: str) -> Replayer:
    def run(artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array]) -> dict[str, Array]:
        from edgekit.runtimes.coreml.reference import RUNTIME
        from edgekit.runtimes.coreml.replay import replay_layers

        session = RUNTIME.load(artifact.path, options={"precision": precision})
        return replay_layers(session.executable, session.inputs, artifact.contract_report, contract, recorded)

    return run


simulate_coreml = _coreml("float32")
"""A package's layers with float32 in place of the precision it declares."""

EXECUTORS = (
    Executor("ONNX Runtime", "onnx", "onnxruntime", "ONNX Runtime", _onnxruntime),
    Executor("LiteRT XNNPACK", "tflite", "litert", "XNNPACK", _litert("xnnpack")),
    Executor("TFLite built-in", "tflite", "litert", "TFLite built-in kernels", _litert("builtin")),
    Executor("TFLite reference", "tflite", "litert", "TFLite reference kernels", _litert("reference")),
    Executor("Core ML reference", "coreml", "coreml-reference", "", _coreml("declared")),
)
"""In the order they are shown; the first of a target is what ships."""
