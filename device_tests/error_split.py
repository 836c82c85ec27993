"""Every layer's error split into its causes, and the layers that make executors differ: see :mod:`edgekit.core.error_split`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import registry
from edgekit.core import worker
from edgekit.core.artifact import Artifact
from edgekit.core.compressed import Compressed
from edgekit.core.confinement import Confinement
from edgekit.core.error_split import ErrorSplit, KernelDifference, KernelSpread, LayerSplit
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.plugins import Progress, silent
from edgekit.core.run import RunFolder
from edgekit.device_tests.transports.local import thread_limits
from edgekit.runtimes.replays import EXECUTORS, Executor, simulate_coreml

if TYPE_CHECKING:
    from edgekit.core.contract import QuantizationContract, TensorQuantization
    from edgekit.core.tensors import Array
    from edgekit.device_tests.bisection.split_program import ProgramLayer
    from edgekit.runtimes.exact.graph import Operation
    from edgekit.runtimes.exact.replay import ExactReplay

__all__ = ["kernel_spreads", "split_all", "split_apart", "split_layers"]

_SAMPLES = 3
_INTEGERS = {"int8", "uint8", "int16"}
_FLOAT32 = 2.0**-22
_HIDES = ("tensorflow", "keras", "jax", "litert_torch")
_SIMULATED = "Q/DQ in float32 by the file's own weights, biases and grids; sums exact, rounded to float32 once"
_SIMULATED_COREML = "the Core ML reference executor with float32 in place of the precision the package declares"


def split_all(run: RunFolder, artifacts: Sequence[Artifact], *, progress: Progress = silent) -> tuple[ErrorSplit, ...]:
    """Split the error of every artifact that can be: those with integer activations that take the program's own inputs.

    Args:
        run: The run.
        artifacts: Its artifacts.
        progress: Called as the work advances.
    """
    here = {executor.target for executor in EXECUTORS if _is_here(executor)}
    chosen = [one for one in artifacts if one.target in here and not (one.is_baseline or one.baked) and _has_layers(one)]
    modelled = {executor.target for executor in EXECUTORS if executor.rules}
    keeper = next((one.label for one in chosen if one.target in modelled), chosen[0].label if chosen else "")
    found = []
    for done, artifact in enumerate(chosen):
        progress(f"split {artifact.label}", done, len(chosen))
        split = split_apart(run, run.artifacts / artifact.label, sample_count=_SAMPLES)
        # The pairs of executors are the run's: they stand once, where the rules of either side are known.
        found.append(split if artifact.label == keeper else split.replace(spreads=()))
    return tuple(found)


def _has_layers(artifact: Artifact) -> bool:
    return any(outcome.dtype in _INTEGERS for outcome in artifact.contract_report.tensors.values())


def split_apart(run: RunFolder, folder: Path, *, sample_count: int) -> ErrorSplit:
    """Split an artifact's error, in a worker.

    Args:
        run: The run.
        folder: Folder of the artifact; int8 activations.
        sample_count: At most so many golden samples.

    Raises:
        UsageError: The artifact has no integer activations, or no executor here runs it.
    """
    answer = worker.call(
        "edgekit.device_tests.error_split:split_in_worker",
        {"run": str(run.path.resolve()), "folder": str(folder.resolve()), "sample_count": sample_count},
        what=f"splitting the error of {folder.name}",
        hides=_HIDES,
        environment=thread_limits(1),
        log=run.log,
        confined=Confinement(reads=(str(run.path.resolve()),)),
    )
    return ErrorSplit.parse(answer, source=f"error split of {folder.name}")


def split_in_worker(*, run: str, folder: str, sample_count: int) -> dict[str, Any]:
    """Worker side of :func:`split_apart`."""
    from edgekit.device_tests.bisection.split_program import program_layers

    place = RunFolder(Path(run))
    artifact = Artifact.load(Path(folder))
    compressed = Compressed.load(place.compressed)
    if artifact.is_baseline or artifact.baked or not compressed.contract.activations:
        raise UsageError(
            f"{artifact.label} has no layers fed with the program's integers, so there is nothing to split."
            " Name an int8 artifact that takes the program's own inputs."
        )
    executors = [executor for executor in EXECUTORS if executor.target == artifact.target and _is_here(executor)]
    if not executors:
        raise UsageError(f"No executor of {artifact.target} files is installed here, so {artifact.label} cannot be split.")
    inputs = {spec.name: compressed.golden.inputs[spec.name][:sample_count] for spec in compressed.record.inputs}
    layers = program_layers(compressed, inputs)
    recorded = {name: layer.integers for name, layer in layers.items()}
    answers, notes = _answers(place, artifact, compressed.contract, recorded)
    shipped = executors[0]
    if shipped.name not in answers:
        raise UsageError(f"{artifact.label} cannot be split: {next(iter(notes), shipped.name + ' gave no answer')}")
    rows, operators = split_layers(artifact, compressed.contract, layers, answers[shipped.name], shipped)
    split = ErrorSplit(
        run=run, target=artifact.target, label=artifact.label, executor=shipped.name, rules=shipped.rules,
        simulation=_SIMULATED if shipped.rules else _SIMULATED_COREML, sample_count=len(next(iter(inputs.values()))),
        layers=rows, spreads=tuple(kernel_spreads(compressed.contract, answers, operators)), notes=tuple(notes),
    )  # fmt: skip
    return split.model_dump(mode="json")


def _is_here(executor: Executor) -> bool:
    return not registry.missing_module(registry.runtime(executor.runtime))


def _answers(
    run: RunFolder, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array]
) -> tuple[dict[str, dict[str, Array]], list[str]]:
    """Executor -> its answers, for every int8 artifact of the run made from the same program; and what could not be run."""
    artifacts = {artifact.target: artifact}
    for folder in sorted(path.parent for path in run.artifacts.glob("*/artifact.json")):
        record = Artifact.read_json(folder / "artifact.json")
        is_alike = record.source_sha256 == artifact.source_sha256 and not record.is_baseline and not record.baked
        if is_alike and record.target not in artifacts and record.contract_report.tensors:
            artifacts[record.target] = Artifact.load(folder)
    found, notes = dict[str, dict[str, Any]](), list[str]()
    for executor in EXECUTORS:
        own = artifacts.get(executor.target)
        if own is None or not _is_here(executor):
            continue
        try:
            found[executor.name] = executor.replay(own, contract, recorded)
        except EdgekitError as reason:
            notes.append(f"{executor.name} could not replay {own.label}: {reason}")
    return found, notes


def split_layers(
    artifact: Artifact,
    contract: QuantizationContract,
    layers: Mapping[str, ProgramLayer],
    answers: Mapping[str, Array],
    executor: Executor,
) -> tuple[tuple[LayerSplit, ...], Mapping[str, Operation]]:
    """Split the error of an artifact's layers in one executor.

    Args:
        artifact: An int8 artifact.
        contract: The contract it was made from.
        layers: What the program computes; see :func:`~edgekit.device_tests.bisection.split_program.program_layers`.
        answers: Activation entry -> the executor's integers ``[S, *shape]`` on the contract's grid.
        executor: What gave them.

    Returns:
        Rows in program order; and entry -> the file's operation that rounds it, where exact kernels can read the file.
    """
    rows = _Rows(artifact, contract, layers, answers, executor)
    return tuple(rows.all()), rows.operators


class _Rows:
    """The layers of one artifact in one executor.

    Attributes:
        operators: Entry -> the file's operation that rounds it, where exact kernels can read the file.
    """

    def __init__(
        self, artifact: Artifact, contract: QuantizationContract, layers: Mapping[str, ProgramLayer],
        answers: Mapping[str, Array], executor: Executor,
    ) -> None:  # fmt: skip
        from edgekit.runtimes.exact.replay import replay
        from edgekit.runtimes.exact.rules import RULES, SIMULATION

        self._contract, self._layers, self._answers, self._executor = contract, layers, answers, executor
        recorded = {name: layer.integers for name, layer in layers.items()}
        self._own: ExactReplay | None = None
        self._missing: Mapping[str, str] = {}
        self._simulated: Mapping[str, Array]
        self.operators: Mapping[str, Operation] = {}
        if executor.rules:
            self._own = replay(artifact, contract, recorded, RULES[executor.rules])
            simulation = replay(artifact, contract, recorded, SIMULATION)
            self._simulated, self._missing = simulation.answers, simulation.missing
            self.operators = self._own.operations
        else:
            self._simulated = simulate_coreml(artifact, contract, recorded)

    def all(self) -> Iterator[LayerSplit]:
        """Rows in program order."""
        for entry in self._contract.activations:
            if entry.role == "activation" and entry.name in self._answers and entry.name in self._layers:
                yield self._row(entry)

    def _row(self, entry: TensorQuantization) -> LayerSplit:
        layer, name = self._layers[entry.name], entry.name
        scale, zero = float(entry.scale[0]), int(entry.zero_point[0])
        real = layer.real.astype(np.float64) / scale
        kept = np.clip(real, entry.minimum - zero, entry.maximum - zero)
        program, found = (values.astype(np.float64) - zero for values in (layer.integers, self._answers[name]))
        simulated = self._simulated.get(name)
        errors: dict[str, Array | None] = {
            "weights": None if layer.floated is None else (layer.real.astype(np.float64) - layer.floated) / scale,
        }
        if simulated is not None:
            middle = simulated.astype(np.float64) - zero
            errors |= {"rewrite": middle - program, "kernel": found - middle}
        else:
            errors["unsplit"] = found - program
        always = {"clipping": kept - real, "rounding": _resolved(program - kept, real)}
        powers = {part: None if values is None else _power(values) for part, values in errors.items()}
        clipping, rounding = (_power(values) for values in always.values())
        total = _power(sum(values for values in (*errors.values(), *always.values()) if values is not None))
        operator = self.operators.get(name)
        return LayerSplit(
            entry=name, op=entry.op, file_op=operator.type if operator else "",
            rule=_rule(self._executor.rules, self.operators, entry),
            value_count=int(real.size), signal=_power(real), clipping=clipping, rounding=rounding, **powers, total=total,
            cross=total - clipping - rounding - sum(power for power in powers.values() if power is not None),
            exact_share=float((found == (program if simulated is None else simulated.astype(np.float64) - zero)).mean()),
            explained_share=self._explained(name), reason=" ".join(self._reasons(name, layer)),
        )  # fmt: skip

    def _explained(self, name: str) -> float | None:
        """Share of the runtime's integers that its own rules make."""
        if self._own is None or name not in self._own.answers:
            return None
        return float((self._own.answers[name] == self._answers[name]).mean())

    def _reasons(self, name: str, layer: ProgramLayer) -> Iterator[str]:
        if layer.reason:
            yield f"No weights part: {layer.reason}."
        if name in self._missing:
            yield f"Rewrite and kernel are not told apart: {self._missing[name]}."


def _resolved(differences: Array, values: Array) -> Array:
    """Differences, without those that float32, in which the program computes, cannot tell from none."""
    kept: Array = np.where(np.abs(differences) <= _FLOAT32 * np.maximum(np.abs(values), 1.0), 0.0, differences)
    return kept


def _power(values: Any) -> float:
    return float(np.mean(np.square(values))) if np.size(values) else 0.0


def _rule(rules: str, operators: Mapping[str, Operation], entry: TensorQuantization) -> str:
    """How a layer is rounded, in words; empty where it is not modelled."""
    from edgekit.runtimes.exact.rules import RULES, describe

    return describe(RULES[rules].of(entry.dtype), operators[entry.name]) if rules and entry.name in operators else ""


def kernel_spreads(
    contract: QuantizationContract, answers: Mapping[str, Mapping[str, Array]], operators: Mapping[str, Operation]
) -> Iterator[KernelSpread]:
    """Every pair of executors, layer by layer on the contract's grid.

    Args:
        contract: The contract.
        answers: Executor -> activation entry -> its integers.
        operators: Entry -> the operation that rounds it, for the words.
    """
    rules = {executor.name: executor.rules for executor in EXECUTORS}
    for (first, one), (second, other) in itertools.combinations(answers.items(), 2):
        rows, size, equal = list[KernelDifference](), 0, 0
        for entry in contract.activations:
            if entry.name not in one or entry.name not in other or one[entry.name].size == 0:
                continue
            steps = np.abs(one[entry.name].astype(np.int64) - other[entry.name].astype(np.int64))
            size, equal = size + steps.size, equal + int((steps == 0).sum())
            if steps.any():
                words = _rule(rules[first], operators, entry), _rule(rules[second], operators, entry)
                share = float((steps != 0).mean())
                row = KernelDifference(
                    entry=entry.name, op=entry.op, differing_share=share, largest_steps=int(steps.max()), rules=words
                )
                rows.append(row)
        count = sum(entry.name in one and entry.name in other for entry in contract.activations)
        yield KernelSpread(
            first=first, second=second, layer_count=count, identical_share=equal / size if size else 1.0,
            layers=tuple(sorted(rows, key=lambda row: -row.differing_share)),
        )  # fmt: skip
