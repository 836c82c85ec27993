"""TFLM as a runtime: an int8 file's answers on a microcontroller, by the same reference kernels, and the memory it takes there.

The wheel holds TFLM's portable reference kernels. Of CMSIS-NN, which most Cortex-M builds use instead, Arm says that it "is
bit-exact with Tensorflow Lite reference kernels", and that where TFLM's differ from them it "follows TFLM reference kernels"
(README of https://github.com/ARM-software/CMSIS-NN). It wants scratch memory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import ConversionError, DataError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.core.tensors import check_inputs
from edgekit.runtimes.litert import LiteRTSession, make_interpreter, read_model
from edgekit.runtimes.tflite_micro.graph import Graph
from edgekit.runtimes.tflite_micro.interpreter import ArenaUse, MicroInterpreter, micro_version, refuse_compiled
from edgekit.runtimes.tflite_micro.trial import smallest_arena

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array, TensorSpec

__all__ = ["OPTIONS", "RUNTIME", "MicroSession", "TFLiteMicroRuntime", "open_model", "plain_settings"]

OPTIONS = (
    RuntimeOption(
        name="arena_bytes", kind="text", default="",
        meaning="Size of the device's tensor arena in bytes: a model that needs more is refused; empty: any size.",
    ),
)  # fmt: skip
"""Options of ``load``."""


class TFLiteMicroRuntime:
    """Runs ``.tflite`` files in TFLM on this machine."""

    name = "tflite-micro"
    kind = "estimate"
    """Used when asked for by name; never chosen for a target by itself."""
    extra = "micro"
    target = "tflite"
    modules = ("tflite_micro", "ai_edge_litert")
    hides = ("torch", "tensorflow", "jax", "onnx", "onnxruntime", "coremltools")
    options = OPTIONS

    def version(self) -> str:
        """Version of tflite-micro."""
        return micro_version()

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> MicroSession:  # noqa: ARG002
        """Load a model file; TFLM knows no threads.

        Raises:
            IntegrityError: The file is missing, or not a model LiteRT and TFLM can read.
            UnsupportedOpError: TFLM lacks an operator; all of them are named, with their layers.
            ConversionError: It does not fit into ``arena_bytes``.
            UsageError: An option is unknown or impossible.
        """
        limit = _arena_limit(options)
        data, specs = open_model(path)
        interpreter = MicroInterpreter(data, str(path))
        if limit is not None:
            _hold_to(limit, _arena_of(interpreter, specs), source=str(path))
        return MicroSession(interpreter, specs)

    def replay_layers(
        self,
        artifact: Artifact,
        contract: QuantizationContract,
        recorded: Mapping[str, Array],
        *,
        threads: int = 1,  # noqa: ARG002
    ) -> dict[str, Array]:
        """Run every quantized layer of the file alone: the graph cut as for LiteRT (:mod:`edgekit.runtimes.litert_replay`)."""
        from edgekit.runtimes.litert_replay import Replay

        data, _ = open_model(artifact.path)
        replay = Replay(data, artifact.contract_report, contract, recorded)
        return replay.run(_AsLiteRT(MicroInterpreter(replay.model, f"{artifact.path}, cut into layers")))

    def appraise(self, path: Path, *, options: Mapping[str, Any]) -> tuple[Measurement, ...]:
        """The memory a microcontroller has to give: arena, model in flash, and the kernels to register.

        ================ ========= ==============================================================
        arena            bytes     smallest arena in which TFLM loads and runs the model here
        arena_tensors    bytes     its part that holds activations
        arena_structures bytes     its part that holds what TFLM and its kernels keep
        flash            bytes     the model file
        operators        operators how many there are; the note lists the kernels
        ================ ========= ==============================================================

        Raises:
            UnsupportedOpError: TFLM lacks an operator.
            ConversionError: It does not fit into ``arena_bytes``.
        """
        limit = _arena_limit(options)
        data, specs = open_model(path)
        interpreter = MicroInterpreter(data, str(path))
        use = _arena_of(interpreter, specs)
        if limit is not None:
            _hold_to(limit, use, source=str(path))
        return _measurements(use, smallest_arena(path, use.total_bytes), interpreter.graph, flash_bytes=len(data))


class MicroSession:
    """A model loaded in TFLM; names, shapes and types are those LiteRT reads from the file.

    Args:
        interpreter: With the model loaded.
        specs: Inputs and outputs in the graph's order.
    """

    def __init__(self, interpreter: MicroInterpreter, specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]) -> None:
        self._interpreter: MicroInterpreter | None = interpreter
        self.inputs, self.outputs = specs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            DataError: A name, shape or dtype is wrong, a kernel failed, or the session is closed.
        """
        if self._interpreter is None:
            raise DataError("This session is closed. Load the model again.")
        check_inputs(inputs, self.inputs)
        for place, spec in enumerate(self.inputs):
            self._interpreter.set(place, inputs[spec.name])
        self._interpreter.invoke()
        return {spec.name: self._interpreter.get(place).reshape(spec.shape) for place, spec in enumerate(self.outputs)}

    def close(self) -> None:
        """Free the model."""
        self._interpreter = None


class _AsLiteRT:
    """A cut model with those methods of LiteRT's interpreter that a replay calls; tensors go by their place."""

    def __init__(self, interpreter: MicroInterpreter) -> None:
        self._interpreter = interpreter

    def get_input_details(self) -> list[dict[str, int]]:
        return [{"index": place} for place in range(self._interpreter.graph.input_count)]

    def get_output_details(self) -> list[dict[str, int]]:
        return [{"index": place} for place in range(self._interpreter.graph.output_count)]

    def set_tensor(self, place: int, values: Array) -> None:
        self._interpreter.set(place, values)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def get_tensor(self, place: int) -> Array:
        return self._interpreter.get(place)


def open_model(path: Path) -> tuple[bytes, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """A file's bytes and its inputs and outputs, once LiteRT has verified it: TFLM verifies nothing.

    Raises:
        IntegrityError: The file is missing or damaged, or stores other shapes than its operators make.
        UnsupportedOpError: It was compiled by Vela already, or holds another custom operator.
    """
    data = read_model(path)
    try:
        return data, _verified(data, str(path))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as reason:
        raise IntegrityError(f"{path} is damaged: {reason} ({type(reason).__name__}). Export again.") from reason


def _verified(data: bytes, source: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    try:
        interpreter = make_interpreter(data, source, threads=1, provider="reference")
    except UnsupportedOpError:  # LiteRT has verified the file before it looks for its kernels
        refuse_compiled(Graph(data), source)
        raise
    session = LiteRTSession(interpreter)
    _check_shapes(Graph(data), interpreter.get_tensor_details(), source)
    return session.inputs, session.outputs


def _check_shapes(graph: Graph, details: Sequence[Mapping[str, Any]], source: str) -> None:
    """Compare the shapes a file stores with those its operators compute: TFLM computes none and trusts what is stored.

    Raises:
        IntegrityError: Two differ.
    """
    computed = {int(found["index"]): tuple(int(size) for size in found["shape"]) for found in details}
    for index, (name, stored) in enumerate(graph.shapes):
        if computed.get(index, stored) != stored:
            raise IntegrityError(
                f"{source}: the file stores tensor '{name}' as {list(stored)}, and its operators make it {list(computed[index])}."
                " TFLM takes the stored shape for true. Export again, with fixed shapes."
            )


def plain_settings(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options with numbers as text: a profile may write ``arena_bytes = 65536``."""
    return {
        name: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in (options or {}).items()
    }


def _arena_limit(options: Mapping[str, Any] | None) -> int | None:
    """The arena's size that options give.

    Raises:
        UsageError: It is no positive number of bytes.
    """
    text = str(read_settings(plain_settings(options), OPTIONS, runtime="TFLM")["arena_bytes"])
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"TFLM: option 'arena_bytes' is '{text}'; it must be a number of bytes, such as 65536.")
    return int(text)


def _hold_to(limit: int, use: ArenaUse, *, source: str) -> None:
    if use.total_bytes > limit:
        raise ConversionError(
            f"{source} needs an arena of {use.total_bytes:,} bytes ({use.tensors_bytes:,} for tensors), and 'arena_bytes' allows"
            f" {limit:,}. Make the layers with the largest activations smaller, or give the device a larger arena."
        )


def _arena_of(interpreter: MicroInterpreter, specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]) -> ArenaUse:
    """What an inference on zeros takes of the arena."""
    import numpy as np

    for place, spec in enumerate(specs[0]):
        interpreter.set(place, np.zeros(spec.shape, spec.dtype))
    interpreter.invoke()
    return interpreter.arena()


def _measurements(use: ArenaUse, smallest: int | None, graph: Graph, *, flash_bytes: int) -> tuple[Measurement, ...]:
    how = "smallest arena in which TFLM loads and runs it" if smallest else "what TFLM takes of a large arena"
    note = (
        f"{how} on a 64-bit host, by its reference kernels: the structures ({use.structures_bytes:,} bytes) are smaller on a"
        " 32-bit core; kernels with scratch memory, such as CMSIS-NN's, need more"
    )
    structures = "nodes, tensor records, quantization parameters; smaller on a 32-bit core"
    return (
        _estimate("arena", smallest or use.total_bytes, "bytes", note),
        _estimate("arena_tensors", use.tensors_bytes, "bytes", "activations, which share memory as TFLM plans it"),
        _estimate("arena_structures", use.structures_bytes, "bytes", structures),
        _estimate("flash", flash_bytes, "bytes", "the model alone; TFLM's code and its kernels come on top"),
        _estimate("operators", len(graph.operators), "operators", f"kernels to register: {', '.join(graph.types)}"),
    )


def _estimate(name: str, value: float, unit: str, note: str) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, evidence=Evidence.ESTIMATED, note=note)


RUNTIME = TFLiteMicroRuntime()
