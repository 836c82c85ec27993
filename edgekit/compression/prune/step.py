"""The pruning step: decide how much goes, cut it in rounds, train after each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekit.compression.capture import recapture
from edgekit.compression.prune.recovery import Recovery
from edgekit.compression.prune.search import Decision, Measured, decide
from edgekit.compression.prune.structure import Structure, prepare, sample_call
from edgekit.compression.training.loop import train
from edgekit.core.compressed import StepRecord
from edgekit.core.errors import DataError, RecipeError
from edgekit.core.program_cost import count_macs, count_parameters

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.pruning import Prune, Sparsify
    from edgekit.core.task import Task

__all__ = ["check_place", "prune"]

_NORM_SAMPLES = 256  # statistics of batch norms are taken anew on so many calibration samples where nothing is trained


@dataclasses.dataclass
class _Done:
    """What the rounds did."""

    decision: Decision
    losses: list[float] = dataclasses.field(default_factory=list)


def prune(
    state: Compressed, *, step: Prune, task: Task, progress: Progress, work: Path | None, bench: Bench | None
) -> tuple[Compressed, StepRecord]:
    """Take channels out of ``state.module``, and train what is left.

    Raises:
        RecipeError: The step has no goal, stands after quantization, or asks for a latency where nothing can be measured.
        DataError: It is to train, or its criterion needs gradients, and there is no training data.
        PruningError: Nothing can be pruned, or the goal cannot be reached.
    """
    clock, cpu = time.perf_counter(), time.process_time()
    module = check_place(state, step, task)
    if step.ratio is None and step.latency_ms is None:
        raise RecipeError("prune: no goal. Write how much goes ('prune50'), or give latency_ms = 3.0 (and a device).")
    structure = prepare(module, task=task, step=step, progress=progress)
    before = structure.widths()
    net, done = _rounds(state, structure, task=task, progress=progress, work=work, bench=bench)
    result = recapture(state, net, task) if any(done.decision.removed.values()) else state
    record = _record(state, result, structure, done, before=before)
    return result, record.replace(seconds=time.perf_counter() - clock, cpu_seconds=time.process_time() - cpu)


def check_place(state: Compressed, step: Prune | Sparsify, task: Task) -> nn.Module:
    """The net a step may change.

    Raises:
        RecipeError: It was quantized already.
        DataError: The step trains, and the task has no training data.
    """
    if state.module is None or state.contract.entries:
        raise RecipeError(f"'{step.word()}' stands after quantization; put it before.")
    if step.recover and task.training is None:
        raise DataError(
            f"'{step.word()}' trains what is left, and task '{task.name}' has no training data. Give Task(..., training=...), or"
            " leave the training out with recover = false (--set steps.0.recover=false)."
        )
    return state.module


def _rounds(
    state: Compressed, structure: Structure, *, task: Task, progress: Progress, work: Path | None, bench: Bench | None
) -> tuple[nn.Module, _Done]:
    step = structure.step
    measured = None
    if bench is not None:
        measured = Measured(state, task=task, structure=structure, bench=bench, work=work, progress=progress)
    done = _Done(decide(structure, step.ratio, measured))
    if not any(done.decision.removed.values()):
        return structure.net, done
    dense = structure.cost().of(structure.goal)
    wanted = structure.cost(done.decision.removed).of(structure.goal) / dense
    net = structure.without(done.decision.removed)
    for at in range(step.rounds):
        if step.rounds > 1:
            # The share that stays falls by the same factor each round (Han et al., arXiv:1506.02626, prune and train in turn).
            present = structure if at == 0 else prepare(net, task=task, step=step, progress=progress)
            target = wanted ** ((at + 1) / step.rounds) * dense
            now = present.cost().of(structure.goal)
            align = done.decision.align
            net = present.without(present.removed(1 - target / now, align=align)) if now > target + 0.5 else present.net
        _recover(net, step, at, dense=structure.net, task=task, progress=progress, work=work, done=done)
    return net, done


def _recover(
    net: nn.Module,
    step: Prune,
    at: int,
    *,
    dense: nn.Module,
    task: Task,
    progress: Progress,
    work: Path | None,
    done: _Done,
) -> None:
    epochs = step.training.epochs * (at + 1) // step.rounds - step.training.epochs * at // step.rounds
    if step.recover and epochs:
        folder = None if work is None else work / f"round-{at}"
        objective = Recovery(task, dense, weight=step.dense_weight) if step.dense_weight else None
        training = step.training.replace(epochs=epochs)
        found = train(net, task, training, objective=objective, work=folder, progress=progress)
        done.losses.extend(found.losses)
    elif not step.recover and task.calibration is not None:
        renew_statistics(net, task)
    net.eval()


@torch.no_grad()
def renew_statistics(net: nn.Module, task: Task) -> None:
    """Take the batch norms' means and variances anew on calibration samples: those of the whole net no longer hold."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over batches
        module.train()
    sample_call(task, count=_NORM_SAMPLES)(net)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()


def _record(state: Compressed, result: Compressed, structure: Structure, done: _Done, *, before: Mapping[str, int]) -> StepRecord:
    macs = count_macs(state.program), count_macs(result.program)
    parameters = count_parameters(state.program), count_parameters(result.program)
    after = _widths_after(result, before)
    details: dict[str, Any] = {
        "goal": structure.goal,
        "ratio_asked": structure.step.ratio,
        "latency_ms_asked": structure.step.latency_ms,
        "ratio": 1 - structure.cost(done.decision.removed).of(structure.goal) / structure.cost().of(structure.goal),
        "macs_before": macs[0],
        "macs_after": macs[1],
        "parameters_before": parameters[0],
        "parameters_after": parameters[1],
        "channels": {name: [width, after.get(name, width)] for name, width in before.items()},
        "criterion": structure.step.criterion,
        "scope": structure.step.scope,
        "rounds": structure.step.rounds,
        "align": done.decision.align,
        "kept": dict(structure.refused),
        "losses": done.losses,
        "timed": list(done.decision.trials),
        "remarks": list(done.decision.remarks),
    }
    gone = f"{1 - macs[1] / max(macs[0], 1):.0%} of the MACs and {1 - parameters[1] / parameters[0]:.0%} of the parameters"
    what = f"removed {gone} from {sum(1 for name in before if after.get(name) != before[name])} layers"
    if done.losses:
        what += f", trained {len(done.losses)} epochs (loss {done.losses[-1]:.4f})"
    summary = "; ".join([what if result is not state else "removed nothing", *done.decision.remarks])
    return StepRecord(kind="prune", summary=summary, seconds=0.0, cpu_seconds=0.0, details=details)


def _widths_after(result: Compressed, before: Mapping[str, int]) -> dict[str, int]:
    from edgekit.compression.prune.layers import side_width

    modules = {} if result.module is None else dict(result.module.named_modules())
    return {name: side_width(modules[name], "out") for name in before if name in modules}
