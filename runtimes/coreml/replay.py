"""Layer replay: every quantized layer of the package alone, fed the compressed program's own integers.

Teacher forcing in one pass per sample: each contract entry's tensor is computed, kept, and replaced by the program's
integers before anything reads it. So every layer sees exactly what it saw in the program, whatever the layers before it did.

A layer that also reads a model input no entry stands for (token indices, say) cannot be replayed from integers: left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.errors import ContractError, DataError
from edgekit.runtimes.coreml.cut import GIVEN, OWN, cut_package
from edgekit.runtimes.coreml.executor import Executable, compile_program
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.package import read_package

if TYPE_CHECKING:
    from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
    from edgekit.core.plugins import Session
    from edgekit.core.tensors import Array, TensorSpec

__all__ = ["replay_cut", "replay_layers"]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is fed, and what is asked.

    Args:
        given: Tensor -> integers ``[S, *shape]`` in the package's own type.
        asked: Tensor -> its entry and outcome, for every layer to be replayed.
        sample_count: ``S``.
    """

    given: dict[str, Array]
    asked: dict[str, tuple[TensorQuantization, EntryOutcome]]
    sample_count: int

    def collect(self, answer: Callable[[dict[str, Array]], Mapping[str, Array]]) -> dict[str, Array]:
        """Ask for every sample, and put the answers back on the contract's grid."""
        collected: dict[str, list[Array]] = {name: [] for name in self.asked}
        for index in range(self.sample_count):
            computed = answer({name: np.asarray(values[index]) for name, values in self.given.items()})
            for name, (entry, outcome) in self.asked.items():
                shifted = np.asarray(computed[name]).astype(np.int32) - outcome.zero_point_shift
                collected[name].append(shifted.reshape(entry.shape).astype(entry.dtype))
        return {self.asked[name][0].name: np.stack(values) for name, values in collected.items() if values}


def replay_layers(
    executable: Executable,
    inputs: tuple[TensorSpec, ...],
    report: ContractReport,
    contract: QuantizationContract,
    recorded: Mapping[str, Array],
) -> dict[str, Array]:
    """Answers of every layer, by contract entry, computed by the reference executor.

    Args:
        executable: The compiled package.
        inputs: Its inputs.
        report: Says which tensor of the package holds which entry.
        contract: The contract.
        recorded: Activation entry -> integers ``[S, *entry.shape]`` on the contract's grid.

    Returns:
        Activation entry (inputs left out) -> the layer's own integers, same shape and grid.

    Raises:
        ContractError: The report names a tensor the package does not compute.
        DataError: Recorded integers have the wrong shape.
    """
    plan = _plan(executable, inputs, report, contract, recorded)
    zeros = {spec.name: torch.zeros(spec.shape, dtype=torch_dtype(spec.dtype)) for spec in inputs}

    def answer(given: dict[str, Array]) -> dict[str, Array]:
        computed = executable.replay(zeros, {name: torch.from_numpy(values) for name, values in given.items()})
        return {name: values.numpy() for name, values in computed.items()}

    return plan.collect(answer)


def replay_cut(
    load: Callable[..., Session],
    package: Path,
    cut: Path,
    report: ContractReport,
    contract: QuantizationContract,
    recorded: Mapping[str, Array],
    *,
    threads: int = 1,
) -> dict[str, Array]:
    """Answers of every layer, computed by whatever ``load`` loads packages with, from a copy cut at every activation.

    Args:
        load: Loads a package: ``load(path, threads=...)``.
        package: The package.
        cut: Where the cut copy is written.
        report: As for :func:`replay_layers`.
        contract: The contract.
        recorded: As for :func:`replay_layers`.
        threads: Handed on to ``load``.
    """
    program = read_package(package)
    plan = _plan(compile_program(program), program.inputs, report, contract, recorded)
    cut_package(package, cut, tensors=list(plan.given), variables=program.variables)
    session = load(cut, threads=threads)
    zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in program.inputs}

    def answer(given: dict[str, Array]) -> dict[str, Array]:
        fed = {name + GIVEN: values.astype(np.int32) for name, values in given.items()}
        return {name.removesuffix(OWN): values for name, values in session.run({**zeros, **fed}).items()}

    try:
        return plan.collect(answer)
    finally:
        session.close()


def _plan(
    executable: Executable,
    inputs: tuple[TensorSpec, ...],
    report: ContractReport,
    contract: QuantizationContract,
    recorded: Mapping[str, Array],
) -> _Plan:
    outcomes = report.tensors
    entries = {outcomes[e.name].tensor: e for e in contract.activations if e.name in outcomes and e.name in recorded}
    for name, entry in entries.items():
        if not executable.computes(name):
            raise ContractError(f"Entry '{entry.name}' is said to be tensor '{name}', which the package does not compute.")
    given = {name: _to_package(recorded[entry.name], entry, outcomes[entry.name]) for name, entry in entries.items()}
    clean = executable.untouched_by({spec.name for spec in inputs}, set(given))
    asked = {name: (e, outcomes[e.name]) for name, e in entries.items() if e.role == "activation" and name in clean}
    return _Plan(given, asked, min((len(values) for values in given.values()), default=0))


def _to_package(values: Array, entry: TensorQuantization, outcome: EntryOutcome) -> Array:
    if tuple(values.shape[1:]) != entry.shape:
        raise DataError(f"Recorded integers of '{entry.name}' have shape {list(values.shape)}; expected {['S', *entry.shape]}.")
    shifted: Array = values.astype(np.int32) + outcome.zero_point_shift
    return shifted.astype(outcome.dtype)
