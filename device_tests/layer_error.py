"""Quantization error layer by layer, on the golden inputs: see :class:`~edgekit.core.validation.LayerError`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.compressed import load_golden
from edgekit.core.confinement import Confinement
from edgekit.core.contract import QuantizationContract
from edgekit.core.validation import LayerError
from edgekit.core.worker import call
from edgekit.device_tests.parity import decibels
from edgekit.device_tests.transports.local import thread_limits

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

__all__ = ["layer_errors"]

_HIDES = ("tensorflow", "onnxruntime", "onnx", "coremltools", "litert_torch", "jax")


def layer_errors(compressed_folder: Path, *, log: Path | None = None) -> tuple[LayerError, ...]:
    """Quantization error of every activation of a compressed program, in program order.

    The programs are loaded in a worker process, never here.

    Args:
        compressed_folder: A folder written by :meth:`edgekit.core.compressed.Compressed.save`.
        log: File the worker's output is appended to.

    Raises:
        IntegrityError: A program file cannot be read.
        WorkerError: The worker crashed.
    """
    contract = QuantizationContract.read_json(compressed_folder / "contract.json")
    if not contract.activations:
        return ()
    rows = call(
        "edgekit.device_tests.layer_error:measure",
        {"folder": str(compressed_folder.resolve())},
        what="measuring layer errors",
        hides=_HIDES,
        environment=thread_limits(1),
        log=log,
        confined=Confinement(reads=(str(compressed_folder.resolve()),)),
    )
    return tuple(LayerError.parse(row, source="the layer error worker") for row in rows)


def measure(folder: str) -> list[dict[str, Any]]:
    """Worker side of :func:`layer_errors`: one row of JSON values for each activation."""
    import torch

    from edgekit.core.program import load_program
    from edgekit.device_tests.alignment import Alignment

    compressed: Any = load_program(Path(folder, "program.pt2")).module(check_guards=False)
    original: Any = load_program(Path(folder, "float.pt2")).module(check_guards=False)
    contract = QuantizationContract.read_json(Path(folder, "contract.json"))
    nodes = {node.name: node for node in compressed.graph.nodes}
    quantizers = {entry.name: nodes[entry.node] for entry in contract.activations}
    alignment = Alignment(compressed.graph, original.graph)
    places = {name: _Place(node, alignment.counterpart(node), clamps=alignment.clamps(node)) for name, node in quantizers.items()}
    sums = {name: _Energies() for name in quantizers}
    golden = load_golden(Path(folder)).inputs
    with torch.no_grad():
        for sample in _samples(golden):
            _add_sample(sums, compressed, original, places=places, sample=sample)
    return [_row(name, sums[name], placed=place.original is not None) for name, place in places.items()]


@dataclasses.dataclass(frozen=True)
class _Place:
    """One activation: its quantize node, the float node it approximates, and whether saturation stands for a clamp there."""

    quantizer: Node
    original: Node | None
    clamps: bool

    @property
    def source(self) -> Node:
        """The node whose value is quantized."""
        return self.quantizer.args[0]  # type: ignore[return-value]  # a quantize node's first argument is a node

    @property
    def grid(self) -> tuple[float, int, int, int]:
        """Scale, zero point, smallest and largest integer."""
        return self.quantizer.args[1:5]  # type: ignore[return-value]  # a quantize node's arguments

    def intended(self, value: torch.Tensor) -> torch.Tensor:
        """The number that was to be rounded: ``value``, clamped where saturation stands for the model's own clamp."""
        if not self.clamps:
            return value
        scale, zero_point, minimum, maximum = self.grid
        return value.clamp((minimum - zero_point) * scale, (maximum - zero_point) * scale)


@dataclasses.dataclass
class _Energies:
    """Sums of squares of one activation over all samples."""

    inherited_signal: float = 0.0
    inherited_noise: float = 0.0
    own_signal: float = 0.0
    own_noise: float = 0.0


def _row(name: str, sums: _Energies, *, placed: bool) -> dict[str, Any]:
    error = LayerError(
        entry=name,
        inherited_snr_db=decibels(sums.inherited_signal, sums.inherited_noise) if placed else None,
        own_snr_db=decibels(sums.own_signal, sums.own_noise),
        reason="" if placed else "the float program has no value at this place: the layer was rewritten",
    )
    return error.model_dump(mode="json")


def _samples(golden: Mapping[str, Any]) -> Iterator[list[torch.Tensor]]:
    import torch

    count = len(next(iter(golden.values())))
    for index in range(count):
        yield [torch.from_numpy(array[index].copy()) for array in golden.values()]


def _add_sample(
    sums: dict[str, _Energies],
    compressed: GraphModule,
    original: GraphModule,
    *,
    places: Mapping[str, _Place],
    sample: Sequence[torch.Tensor],
) -> None:
    expected = _values(original, {place.original for place in places.values()}, sample)
    found = _values(compressed, {node for place in places.values() for node in (place.quantizer, place.source)}, sample)
    for name, place in places.items():
        scale, zero_point, *_ = place.grid
        value = (found[place.quantizer].float() - zero_point) * scale  # as dequantize_per_tensor computes it
        exact = place.intended(found[place.source])
        sums[name].own_signal += _energy(exact)
        sums[name].own_noise += _energy(value - exact)
        if place.original is not None:
            reference = expected[place.original]
            sums[name].inherited_signal += _energy(reference)
            sums[name].inherited_noise += _energy(value - reference)


def _energy(values: torch.Tensor) -> float:
    return float(values.double().square().sum())


def _values(module: GraphModule, wanted: set[Any], sample: Sequence[torch.Tensor]) -> dict[Any, torch.Tensor]:
    """Values of the wanted nodes in one run, each copied before a later operator can write into it."""
    from torch.fx import Interpreter

    found: dict[Any, torch.Tensor] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                found[n] = value.clone()
            return value

    Recorder(module).run(*sample)
    return found
