"""Decisions that rest on the converted file: how little pruning meets a latency, and whether the pruned file is slower.

What was measured is kept in the work folder, so that a run that is resumed decides as it did before.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.compression.capture import recapture
from edgekit.compression.prune.align import wanted_multiple
from edgekit.compression.prune.goal import reachable
from edgekit.compression.prune.structure import Structure
from edgekit.core.errors import PruningError, RecipeError
from edgekit.core.files import write_text
from edgekit.core.stages import TimedProgram

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.task import Task

__all__ = ["Decision", "Measured", "decide"]

_LATENCY_TRIALS = 6
_SIZE_TRIALS = 3
_LESS = (0.75, 0.5, 0.25)
"""Shares of the ratio that are tried when the pruned file is slower at every alignment."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """How much goes.

    Args:
        removed: Group -> units.
        align: The alignment it was found with.
        remarks: What a reader must know.
        trials: What was measured on the way.
    """

    removed: Mapping[str, int]
    align: int
    remarks: tuple[str, ...] = ()
    trials: tuple[dict[str, Any], ...] = ()


class Measured:
    """Times candidate nets as converted files beside the dense one.

    Args:
        state: The dense program.
        task: Its task.
        structure: What can be cut.
        bench: Converts and times.
        work: Where trials are kept.
        progress: Called before each trial.
    """

    def __init__(
        self, state: Compressed, *, task: Task, structure: Structure, bench: Bench, work: Path | None, progress: Progress
    ) -> None:
        self.state, self.task, self.structure, self.bench, self.progress = state, task, structure, bench, progress
        self.path = None if work is None else work / "timed.json"
        self.trials: list[dict[str, Any]] = []
        if self.path is not None and self.path.is_file():
            self.trials = json.loads(self.path.read_text(encoding="utf-8"))

    def time(self, removed: Mapping[str, int]) -> TimedProgram:
        """Latency of the file without so many units, and its speed-up over the dense one's."""
        key = {name: count for name, count in sorted(removed.items()) if count}
        for trial in self.trials:
            if trial["removed"] == key:
                return TimedProgram.parse(trial["timed"], source="timed.json")
        step = self.structure.step
        self.progress(f"prune: timing a converted file ({len(self.trials) + 1})", len(self.trials), None)
        candidate = recapture(self.state, self.structure.without(removed), self.task) if key else self.state
        timed = self.bench.time({"dense": self.state, "pruned": candidate}, target=step.target, device=step.device)["pruned"]
        self.trials.append({"removed": key, "timed": timed.model_dump(mode="json")})
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(self.trials))
        return timed

    def size_share(self, removed: Mapping[str, int]) -> float:
        """Bytes of the converted file without so many units, as a share of the dense one's."""
        candidate = recapture(self.state, self.structure.without(removed), self.task)
        target = self.structure.step.target
        self.progress("prune: size of a converted file", 0, None)
        return self.bench.size_bytes(candidate, target=target) / self.bench.size_bytes(self.state, target=target)

    def rows(self) -> tuple[dict[str, Any], ...]:
        """What was measured: MACs, latency, speed-up."""
        rows = []
        for trial in self.trials:
            timed = TimedProgram.parse(trial["timed"], source="timed.json")
            macs = self.structure.cost(trial["removed"]).macs
            rows.append({"macs": round(macs), "latency_ms": timed.latency.value, "speedup": timed.speedup})
        return tuple(rows)


def decide(structure: Structure, ratio: float | None, measured: Measured | None) -> Decision:
    """How much goes: a share, or as little as a latency takes; less where the file would be slower.

    Args:
        structure: What can be cut.
        ratio: Share of the goal's quantity; None: the step's latency decides.
        measured: Times candidates; None: nothing is measured.

    Raises:
        RecipeError: A latency is asked for where nothing can be measured.
        PruningError: Ratio or latency cannot be reached.
    """
    align = structure.allocation.align
    if ratio is None:
        if measured is None:
            raise RecipeError(
                "prune: latency_ms is measured on converted files, and nothing can be measured here. Run it with"
                " 'edgekit compress', or give a ratio."
            )
        found, remarks = _for_latency(structure, measured)
        return Decision(found, align, remarks, measured.rows())
    removed = structure.removed(ratio)
    if measured is not None and structure.goal == "size":
        ratio, removed = _for_size(structure, ratio, removed, measured)
    if measured is None or not structure.step.never_slower or not any(removed.values()):
        return Decision(removed, align)
    return _never_slower(structure, ratio, removed, measured)


def _for_latency(structure: Structure, measured: Measured) -> tuple[dict[str, int], tuple[str, ...]]:
    bound = structure.step.latency_ms or 0.0
    dense = measured.time({})
    if dense.latency.value <= bound:
        return {}, (f"the dense file runs in {dense.latency.value:.3g} ms, which is within {bound:g} ms: nothing was pruned",)
    most = reachable(structure.allocation, structure.model, goal=structure.goal)
    removed = structure.removed(most * 0.999)
    fastest = measured.time(removed)
    if fastest.latency.value > bound:
        raise PruningError(
            f"{bound:g} ms cannot be reached: dense, the {fastest.target} file runs in {dense.latency.value:.3g} ms on"
            f" {fastest.device}; with {most:.0%} of its {structure.goal} gone in {fastest.latency.value:.3g} ms. Ask for more"
            f" time, raise largest_ratio ({structure.step.largest_ratio:g}), or quantize as well."
        )
    low, high = (0.0, dense.latency.value), (most * 0.999, fastest.latency.value)
    for _ in range(_LATENCY_TRIALS):
        # Between the secant and the middle: latency is nearly linear in the ratio, with steps.
        secant = low[0] + (high[0] - low[0]) * (low[1] - bound) / max(low[1] - high[1], 1e-9)
        trial = (min(max(secant, low[0]), high[0]) + (low[0] + high[0]) / 2) / 2
        candidate = structure.removed(trial)
        if high[0] - low[0] < 0.01 or candidate == removed:
            break
        value = measured.time(candidate).latency.value
        if value <= bound:
            high, removed = (trial, value), candidate
        else:
            low = (trial, value)
    return removed, (f"{high[1]:.3g} ms of at most {bound:g} ms on {fastest.device} ({fastest.evidence})",)


def _for_size(structure: Structure, ratio: float, removed: dict[str, int], measured: Measured) -> tuple[float, dict[str, int]]:
    """What takes the asked share off the converted file: more of the weights, as the file holds other things too."""
    trial = ratio
    for _ in range(_SIZE_TRIALS):
        gone = 1 - measured.size_share(removed)
        if gone >= ratio:
            break
        trial *= ratio / max(gone, 0.01)
        removed = structure.removed(trial)
    return trial, removed


def _never_slower(structure: Structure, ratio: float, removed: Mapping[str, int], measured: Measured) -> Decision:
    first = measured.time(removed)
    align = structure.allocation.align
    if not first.is_slower:
        return Decision(removed, align, (), measured.rows())
    slower = f"the {first.target} file was {1 / first.speedup:.2f} times slower than dense on {first.device}"
    wanted = wanted_multiple(structure.step.target)
    for coarser in sorted({wanted, 2 * wanted, 4 * wanted}):
        if coarser <= align or (candidate := _reached(structure, ratio, coarser)) is None:
            continue
        if candidate != removed and not measured.time(candidate).is_slower:
            return Decision(candidate, coarser, (f"{slower}; channels are multiples of {coarser} instead",), measured.rows())
    for share in _LESS:
        candidate = _reached(structure, ratio * share, align)
        if candidate is not None and any(candidate.values()) and not measured.time(candidate).is_slower:
            return Decision(candidate, align, (f"{slower}; pruned {ratio * share:.0%} instead",), measured.rows())
    return Decision({}, align, (f"{slower}, and with less pruning too: the net was left dense",), measured.rows())


def _reached(structure: Structure, ratio: float, align: int) -> dict[str, int] | None:
    try:
        return structure.removed(ratio, align=align)
    except PruningError:
        return None
