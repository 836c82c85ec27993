"""Layer replay: every quantized layer of the package alone, fed the compressed program's own integers.

Teacher forcing in one pass per sample: each contract entry's tensor is computed, kept, and replaced by the program's
integers before anything reads it. So every layer sees exactly what it saw in the program, whatever the layers before it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.errors import ContractError, DataError
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype

if TYPE_CHECKING:
    from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
    from edgekit.core.tensors import Array, TensorSpec
    from edgekit.runtimes.coreml.executor import Executable

__all__ = ["replay_layers"]


def replay_layers(
    executable: Executable,
    inputs: tuple[TensorSpec, ...],
    report: ContractReport,
    contract: QuantizationContract,
    recorded: Mapping[str, Array],
) -> dict[str, Array]:
    """Answers of every layer, by contract entry.

    Args:
        executable: The compiled package.
        inputs: Its inputs.
        report: Says which tensor of the package holds which entry.
        contract: The contract.
        recorded: Activation entry -> integers ``[S, *entry.shape]`` on the contract's grid.

    Returns:
        Activation entry -> the layer's own integers, same shape and grid. Left out are inputs, entries without a tensor,
        and layers that read a model input which no entry stands for.

    Raises:
        ContractError: The report names a tensor the package does not have.
        DataError: Recorded integers have the wrong shape.
    """
    tensors = report.tensors
    entries = {tensors[e.name].tensor: e for e in contract.activations if e.name in tensors and e.name in recorded}
    outcomes = {outcome.tensor: outcome for outcome in tensors.values()}
    given = {name: _to_package(recorded[entry.name], entry, outcomes[name]) for name, entry in entries.items()}
    names = executable.untouched_by({spec.name for spec in inputs}, set(given))
    zeros = {spec.name: torch.zeros(spec.shape, dtype=torch_dtype(spec.dtype)) for spec in inputs}
    answers: dict[str, list[Array]] = {name: [] for name in given if entries[name].role == "activation" and name in names}
    for index in range(min((len(values) for values in given.values()), default=0)):
        computed = executable.replay(zeros, {name: values[index] for name, values in given.items()})
        for name, collected in answers.items():
            if name not in computed:
                raise ContractError(
                    f"Entry '{entries[name].name}' is said to be tensor '{name}', which the package does not have."
                )
            collected.append(_to_contract(computed[name], entries[name], outcomes[name]))
    return {entries[name].name: np.stack(collected) for name, collected in answers.items() if collected}


def _to_package(values: Array, entry: TensorQuantization, outcome: EntryOutcome) -> torch.Tensor:
    if tuple(values.shape[1:]) != entry.shape:
        raise DataError(f"Recorded integers of '{entry.name}' have shape {list(values.shape)}; expected {['S', *entry.shape]}.")
    shifted = values.astype(np.int32) + outcome.zero_point_shift
    return torch.from_numpy(shifted).to(torch_dtype(outcome.dtype))


def _to_contract(values: torch.Tensor, entry: TensorQuantization, outcome: EntryOutcome) -> Array:
    shifted = values.numpy().astype(np.int32) - outcome.zero_point_shift
    return shifted.reshape(entry.shape).astype(entry.dtype)
