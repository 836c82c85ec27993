"""TFLM's interpreter: it is given only files LiteRT has accepted, room enough, and its messages become errors.

TFLM trusts its file, and in too small an arena it may crash instead of failing (seen in version 0.dev20261023182759). So an
arena is never tried out in the process that answers.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import ConversionError, DataError, EdgekitError, IntegrityError, UnsupportedOpError
from edgekit.runtimes.tflite_micro.graph import ETHOS_U, Graph
from edgekit.runtimes.tflite_micro.messages import native_messages

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["ArenaUse", "MicroInterpreter", "micro_version", "refuse_compiled"]

_LARGEST_ARENA_BYTES = 2**30
_ARENA = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_LACKING = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_FAILED = re.compile(r"Node (\S+) \(number (\d+)\) failed to (prepare|invoke)")
_REFUSALS = (RuntimeError, ValueError, AttributeError, IndexError, KeyError, TypeError)
"""What its Python part raises: it reads the file before TFLM does, and expects every operator to have its options."""
_NO_ROOM = ("Failed to allocate", "Failed to resize buffer", "Unable to allocate")


@dataclasses.dataclass(frozen=True)
class ArenaUse:
    """What TFLM took of its arena, as its recording allocator counts it.

    Args:
        total_bytes: All of it.
        tensors_bytes: Activations and scratch memory, planned so that they share room ("head").
        structures_bytes: Nodes, tensor records, quantization parameters: what the kernels keep ("tail").
    """

    total_bytes: int
    tensors_bytes: int
    structures_bytes: int


class MicroInterpreter:
    """A model in TFLM, in an arena that is large enough.

    Args:
        data: The .tflite file; LiteRT has accepted it.
        source: Where it came from, for messages.

    Raises:
        UnsupportedOpError: TFLM lacks an operator, or has no kernel for its types; names all of them with their layers.
        IntegrityError: TFLM refuses the file.
        ConversionError: It needs an arena beyond any microcontroller's.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self.graph = Graph(data)
        self._data = data
        self._source = source
        self._interpreter = self._load()

    def set(self, place: int, values: Array) -> None:
        """Give the input at ``place`` in the graph's order its values."""
        import numpy as np

        self._interpreter.set_input(np.ascontiguousarray(values), place)

    def invoke(self) -> None:
        """One inference.

        Raises:
            UnsupportedOpError: A kernel finds only now that it lacks a type; names its layer.
            DataError: A kernel failed.
        """
        with native_messages() as messages:
            try:
                self._interpreter.invoke()
            except RuntimeError as reason:
                raise self._failed(messages() or str(reason)) from reason

    def get(self, place: int) -> Array:
        """Values of the output at ``place`` in the graph's order."""
        values: Array = self._interpreter.get_output(place).copy()
        return values

    def arena(self) -> ArenaUse:
        """What it took of its arena, after an inference.

        Raises:
            ConversionError: This version of TFLM says so in other words.
        """
        with native_messages() as messages:
            self._interpreter.print_allocations()
        found = {name: int(size) for name, size in _ARENA.findall(messages())}
        if set(found) != {"total", "head", "tail"}:
            raise ConversionError(
                f"tflite-micro {micro_version()} does not say what its arena holds in the words of 0.dev20261023182759."
                " Install that version: pip install 'tflite-micro==0.dev20261023182759'."
            )
        return ArenaUse(total_bytes=found["total"], tensors_bytes=found["head"], structures_bytes=found["tail"])

    def _load(self) -> Any:
        size = self.graph.largest_arena_bytes
        while size <= _LARGEST_ARENA_BYTES:
            found, text = _try(self._data, size)
            if found is not None:
                return found
            if not any(words in text for words in _NO_ROOM):
                raise self._explained(text)
            size *= 4
        raise ConversionError(
            f"{self._source}: TFLM needs an arena of more than {_LARGEST_ARENA_BYTES // 2**20} MiB for it: it is no model for a"
            " microcontroller. Make its inputs or its layers smaller."
        )

    def _explained(self, text: str) -> EdgekitError:
        if _LACKING.search(text):
            layers = "; ".join(
                f"{kind} ({', '.join(repr(name) for name in names[:3])}{', …' * (len(names) > 3)})"
                for kind, names in self.graph.layers_of(self._lacking(text)).items()
            )
            return UnsupportedOpError(
                f"{self._source}: TFLM {micro_version()} has no kernel for these operators (and layers): {layers}. Replace them"
                " in the model, or run the file with LiteRT on a device with an operating system."
            )
        if _FAILED.search(text):
            return self._unsupported(text)
        said = _last_line(text) or "it gives no reason"
        return IntegrityError(f"{self._source} is no model that TFLM {micro_version()} can load: {said}. Export again.")

    def _failed(self, text: str) -> EdgekitError:
        if "not supported" in text and _FAILED.search(text):
            return self._unsupported(text)
        kind, layer, said = self._place(text)
        where = f" in operator {kind} of layer '{layer}'" if kind else ""
        return DataError(f"{self._source}: TFLM could not run the model on these inputs{where}: {said}.")

    def _unsupported(self, text: str) -> UnsupportedOpError:
        kind, layer, said = self._place(text)
        return UnsupportedOpError(
            f"{self._source}: TFLM {micro_version()} cannot run operator {kind} of layer '{layer}' as it stands: {said}."
            " Export every layer in int8, or run the file with LiteRT."
        )

    def _place(self, text: str) -> tuple[str, str, str]:
        """Operator and layer that a message names, and the reason it gives before."""
        failed = _FAILED.search(text)
        if failed is None:
            return "", "", _last_line(text)
        main = [operator.layer for operator in self.graph.operators if operator.subgraph == 0]
        layer = main[int(failed[2])] if int(failed[2]) < len(main) else "?"
        return failed[1], layer, _last_line(text[: failed.start()]) or "it gives no reason"

    def _lacking(self, text: str) -> list[str]:
        """All operator types TFLM lacks; it names one at a time."""
        found: list[str] = []
        while (named := _LACKING.search(text)) and named[1] not in found:
            found.append(named[1])
            if named[1] not in self.graph.types:  # another spelling than the schema's
                return found
            _, text = _try(self.graph.probe(found), 2**20)
        return found


def refuse_compiled(graph: Graph, source: str) -> None:
    """Refuse a file Vela has compiled.

    Raises:
        UnsupportedOpError: It is one.
    """
    if ETHOS_U in graph.types:
        raise UnsupportedOpError(
            f"{source} was compiled by Vela already: its operator '{ETHOS_U}' is a command stream that only the NPU can run."
            " Give the .tflite file it was made from."
        )


def micro_version() -> str:
    """Version of tflite-micro."""
    return metadata.version("tflite-micro")


def _try(data: bytes, size: int) -> tuple[Any, str]:
    """An interpreter in an arena of ``size`` bytes, or None and what TFLM said."""
    runtime = importlib.import_module("tflite_micro").runtime
    with native_messages() as messages:
        try:
            return runtime.Interpreter.from_bytes(data, arena_size=size), ""
        except _REFUSALS as reason:
            return None, messages() + f"\n{reason}"


def _last_line(text: str) -> str:
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
