"""How much noise rounding makes in each layer, and how much of it reaches the outputs: one pass over some samples.

In the float graph, at each layer, the error ``e`` that rounded weights (or a rounded output) would make is computed and
put aside. Going back from the outputs with a random sign ``v`` for each (normalised) output gives each layer's gradient ``g``,
and to first order ``E[(g . e)**2]`` is the error's power at the outputs: ``v`` is white, so the products that mix outputs
cancel (Hutchinson 1990; the idea of HAWQ-V2, arXiv:1911.03852, applied to the error itself instead of a curvature bound). So
one forward and one backward pass tell every layer's share, weights and activations apart, whatever the number of layers.
Powers of different layers are added: rounding errors of different layers are nearly uncorrelated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Interpreter, Node

from edgekit.compression.search.simulate import as_outputs, call_kernel, round_activation, round_weight, weighted_kernels
from edgekit.core.errors import ContractError

if TYPE_CHECKING:
    from edgekit.compression.search.simulate import Simulation

__all__ = ["Noise", "NoiseMap", "OutputNoise", "decibels", "measure_noise"]

_MOVES = {"max_pool", "concat", "move", "pad"}  # what these give was on its grid before
_DIRECTIONS = 2  # random signs a sample: with 16 samples the power's own error is about a decibel


@dataclasses.dataclass
class Noise:
    """What one source of noise does, as powers relative to the signal's.

    Args:
        local: At the layer's own output.
        reached: At the model's outputs.
    """

    local: float = 0.0
    reached: float = 0.0


@dataclasses.dataclass
class NoiseMap:
    """Noise by source.

    Args:
        weights: Layer's node -> stored type (``int8``, ``int4``) -> noise.
        values: Planned value -> noise of its int8 grid.
        is_traced: Gradients reached the layers, so ``reached`` says something.
        sample_count: Program calls looked at.
    """

    weights: dict[Node, dict[str, Noise]]
    values: dict[Node, Noise]
    is_traced: bool
    sample_count: int


def measure_noise(
    simulation: Simulation, samples: Sequence[Sequence[torch.Tensor]], *, progress: Callable[[int], None], seed: int = 0
) -> NoiseMap:
    """Measure every source of noise on ``samples`` (arguments of one program call each)."""
    probe = _Probe(simulation, _signal_powers(simulation, samples))
    generator = torch.Generator().manual_seed(seed)
    traced = True
    for done, arguments in enumerate(samples):
        traced = probe.look(arguments, generator) and traced
        progress(done + 1)
    return NoiseMap(
        weights={node: {word: sums.noise() for word, sums in held.items()} for node, held in probe.weights.items()},
        values={node: sums.noise() for node, sums in probe.values.items()},
        is_traced=traced and bool(samples),
        sample_count=len(samples),
    )


class OutputNoise:
    """Error power over signal power, of all samples together, averaged over the float outputs."""

    def __init__(self) -> None:
        self.powers: dict[int, list[float]] = {}

    def add(self, outputs: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> None:
        """Count one call's outputs."""
        for index, (left, right) in enumerate(zip(outputs, reference, strict=True)):
            if right.is_floating_point():
                held = self.powers.setdefault(index, [0.0, 0.0])
                held[0] += float((left - right).double().square().sum())
                held[1] += float(right.double().square().sum())

    def mean(self) -> float:
        """The mean; 0 without float outputs."""
        shares = [error / signal for error, signal in self.powers.values() if signal > 0]
        return sum(shares) / len(shares) if shares else 0.0


def decibels(noise: float) -> float | None:
    """A relative noise power as signal-to-noise ratio; None without noise."""
    return -10 * math.log10(noise) if noise > 0 else None


def _signal_powers(simulation: Simulation, samples: Sequence[Sequence[torch.Tensor]]) -> list[float]:
    """Mean power of each output over the samples: what its error is compared with."""
    powers: list[float] = []
    for arguments in samples:
        with torch.no_grad():
            outputs = as_outputs(simulation.module(*arguments))
        here = [float(output.double().square().sum()) if output.is_floating_point() else 0.0 for output in outputs]
        powers = [one + other for one, other in zip(powers or [0.0] * len(here), here, strict=True)]
    return [power / len(samples) for power in powers]


@dataclasses.dataclass
class _Sums:
    signal: float = 0.0
    error: float = 0.0
    reached: float = 0.0
    calls: int = 0

    def noise(self) -> Noise:
        local = self.error / self.signal if self.signal > 0 else 0.0
        return Noise(local, self.reached / max(self.calls, 1))


class _Probe(Interpreter):
    """Runs the float graph and hangs, at each watched tensor, the errors it would have onto its gradient."""

    def __init__(self, simulation: Simulation, powers: Sequence[float]) -> None:
        super().__init__(simulation.module, garbage_collect_values=True)
        self.simulation = simulation
        self.powers = powers
        self.kernels = {kernel.node: kernel for kernel in weighted_kernels(simulation.plan)}
        moved = {kernel.end for kernel in simulation.plan.kernels if kernel.family.name in _MOVES}
        self.narrow = {
            node: {kind: round_weight(self._weight(node), kernel, kind) for kind in ("int8", "int4")}
            for node, kernel in self.kernels.items()
            if node in simulation.weights
        }
        self.weights = {node: {kind: _Sums() for kind in kinds} for node, kinds in self.narrow.items()}
        self.values = {node: _Sums() for node in simulation.grids if node not in moved}
        self.hung: list[tuple[torch.Tensor, list[tuple[_Sums, torch.Tensor]]]] = []

    def _weight(self, node: Node) -> torch.Tensor:
        from edgekit.compression.quantize.canonical.form import constant

        weight = constant(self.simulation.module, node.args[self.kernels[node].family.weight or 0])
        if weight is None:
            raise ContractError(
                f"Layer '{self.kernels[node].layer}': its weight is computed, not constant; nothing can be measured."
            )
        return weight

    def look(self, arguments: Sequence[torch.Tensor], generator: torch.Generator) -> bool:
        """One sample forward and back; False where no gradient came back."""
        self.hung = []
        with torch.enable_grad():
            outputs = as_outputs(self.run(*arguments, enable_io_processing=False))
            floats = [
                (output, power)
                for output, power in zip(outputs, self.powers, strict=True)
                if output.is_floating_point() and output.requires_grad and power > 0
            ]
            if not floats:
                return False
            tensors = [tensor for tensor, _ in self.hung]
            for direction in range(_DIRECTIONS):
                total = sum(_project(output, power, generator) for output, power in floats) / math.sqrt(len(floats))
                keep = direction + 1 < _DIRECTIONS
                try:
                    found = torch.autograd.grad(total, tensors, retain_graph=keep, allow_unused=True)  # type: ignore[arg-type]
                except (RuntimeError, NotImplementedError):  # an operator without a derivative
                    return False
                self._add_up(found)
        self.hung = []
        return True

    def _add_up(self, gradients: Sequence[torch.Tensor | None]) -> None:
        for (_, errors), gradient in zip(self.hung, gradients, strict=True):
            for sums, error in errors:
                sums.calls += 1
                if gradient is not None:
                    sums.reached += float((gradient * error).sum(dtype=torch.float64)) ** 2

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return result
        errors: list[tuple[_Sums, torch.Tensor]] = []
        with torch.no_grad():
            if n in self.narrow:
                arguments, keywords = self.fetch_args_kwargs_from_env(n)
                for kind, weight in self.narrow[n].items():
                    other = call_kernel(self.kernels[n], arguments, keywords, weight)
                    errors.append((self.weights[n][kind], other - result))
            if n in self.values:
                errors.append((self.values[n], round_activation(result, self.simulation.grids[n]) - result))
            for sums, error in errors:
                sums.signal += float(result.square().sum(dtype=torch.float64))
                sums.error += float(error.square().sum(dtype=torch.float64))
        if errors and not result.requires_grad:
            result = result.detach().requires_grad_()
        if errors:
            self.hung.append((result, errors))
        return result


def _project(output: torch.Tensor, power: float, generator: torch.Generator) -> torch.Tensor:
    signs = torch.randint(0, 2, output.shape, generator=generator, dtype=torch.int8).to(output.dtype) * 2 - 1
    return (output * signs).sum() / math.sqrt(power)
