"""Every quantized layer of a file, run alone by exact kernels on given integers.

The file is cut where the runtimes cut it (:mod:`edgekit.runtimes.litert_replay`, :mod:`edgekit.runtimes.onnxruntime_replay`), so
that answers can be compared integer by integer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.exact.executor import unanswered
from edgekit.runtimes.exact.kernels import MOVING

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.graph import Graph, Operation
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["ExactReplay", "replay"]


@dataclasses.dataclass(frozen=True)
class ExactReplay:
    """Answers of exact kernels.

    Args:
        answers: Activation entry -> integers ``[S, *shape]`` on the contract's grid.
        operations: Entry -> the file's operation that rounds it: the one that makes it, or one before that only moves integers.
        missing: Entry -> why it has no answer.
    """

    answers: Mapping[str, Array]
    operations: Mapping[str, Operation]
    missing: Mapping[str, str]


def replay(artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], rules: Rules) -> ExactReplay:
    """Run every quantized layer of an artifact with a set of rounding rules.

    Args:
        artifact: An int8 ``.tflite`` or ``.onnx`` artifact that a runtime has accepted.
        contract: The contract it was made from.
        recorded: Activation entry -> the program's integers ``[S, *entry.shape]``.
        rules: The rounding rules.

    Raises:
        UnsupportedOpError: There are no exact kernels for the artifact's target.
    """
    if artifact.target not in _REPLAYS:
        raise UnsupportedOpError(
            f"{artifact.path} is a {artifact.target} file; exact integer kernels read {' and '.join(_REPLAYS)} files."
        )
    return _REPLAYS[artifact.target](artifact.path, artifact, contract, recorded, rules)


def _replay_tflite(
    path: Path, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], rules: Rules
) -> ExactReplay:
    from edgekit.runtimes.exact.tflite_file import TFLiteInterpreter
    from edgekit.runtimes.litert_replay import Replay

    cut = Replay(path.read_bytes(), artifact.contract_report, contract, recorded)
    interpreter = TFLiteInterpreter(cut.model, rules)
    tensors = dict(zip(cut.answered, interpreter.graph.outputs, strict=True))
    return _sorted(interpreter.graph, tensors, cut.run(interpreter))


def _replay_onnx(
    path: Path, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], rules: Rules
) -> ExactReplay:
    from edgekit.runtimes.exact.onnx_file import OnnxSession
    from edgekit.runtimes.onnxruntime_replay import cut

    layers = cut(path.read_bytes(), artifact.contract_report, contract, recorded)
    session = OnnxSession(layers.model, rules)
    reasons = unanswered(session.graph)
    computed = dataclasses.replace(layers, made={entry: name for entry, name in layers.made.items() if name not in reasons})
    return _sorted(session.graph, layers.made, computed.run(session, recorded))


def _sorted(graph: Graph, tensors: Mapping[str, str], answers: Mapping[str, Array]) -> ExactReplay:
    """Take out what was not computed."""
    reasons = unanswered(graph)
    makers = {name: operation for operation in graph.operations for name in operation.writes}
    return ExactReplay(
        answers={entry: values for entry, values in answers.items() if tensors[entry] not in reasons},
        operations={entry: _rounding(makers[tensor], makers) for entry, tensor in tensors.items() if tensor in makers},
        missing={entry: reasons[tensor] for entry, tensor in tensors.items() if tensor in reasons},
    )


def _rounding(operation: Operation, makers: Mapping[str, Operation]) -> Operation:
    """The operation whose rounding a tensor holds."""
    while operation.kernel in MOVING and operation.reads[0] in makers:
        operation = makers[operation.reads[0]]
    return operation


_REPLAYS: dict[str, Callable[[Path, Artifact, QuantizationContract, Mapping[str, Array], Rules], ExactReplay]] = {
    "tflite": _replay_tflite,
    "onnx": _replay_onnx,
}
"""Target -> its replay."""
