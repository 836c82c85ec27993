"""Which plan to try next: the cheapest first, each judged on evaluation data, until one keeps the metric.

int8 comes before w4a8, which has the same activations and coarser weights: where int8 misses the bound, w4a8 would, and is
not tried. ``mixed`` frees as many layers as the drop of the last integer plan asks for: a drop grows with the noise's
amplitude, so the noise has to fall with the square of what the drop may be.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from edgekit.compression.search.allocate import WORK, Problem, allocate, exceptions
from edgekit.compression.search.binding import find_binding
from edgekit.compression.search.judge import Judge
from edgekit.compression.search.measure import measure_noise
from edgekit.compression.search.sensitivity import begin_study
from edgekit.compression.search.trials import Trials
from edgekit.core.compressed import Compressed, StepRecord
from edgekit.core.errors import RecipeError, UsageError
from edgekit.core.recipe import Quantize
from edgekit.core.search import BindingLayer, SearchReport, Trial

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Auto
    from edgekit.core.task import Task

__all__ = ["search"]

_NOISE_SAMPLES = 16
_MIXED_ROUNDS = 2
_DEAREST_MIX = 3.0  # relative work from which weight-only plans, with no integer activation at all, are the better buy
_WORTH = 0.05  # share of the bytes that 4-bit weights must save to be worth what they may cost elsewhere
_TARGETS_WITHOUT_WIDE = {"coreml"}  # no kernels for 16-bit activations: such layers would be computed in float


def search(
    state: Compressed, *, step: Auto, task: Task, progress: Progress, work: Path | None = None
) -> tuple[Compressed, StepRecord]:
    """Find the cheapest plan that keeps the bound and carry it out; where none does, the nearest miss.

    Args:
        state: The float program.
        step: Bound and candidates.
        task: Brings calibration and evaluation data, and the metric.
        progress: Called as the work advances, and with one line for each plan that was tried.
        work: Folder for finished plans, from which a run that was killed goes on; None: none are kept.

    Raises:
        DataError: No evaluation data, or a metric that cannot be used.
        RecipeError: The bound means nothing, or no candidate could be carried out.
    """
    if state.contract.entries:
        raise UsageError("The program is quantized already; 'auto' chooses how to quantize, so it has to be the only such step.")
    clock, cpu = time.perf_counter(), time.process_time()
    judge = Judge(task, state, step=step, progress=progress)
    finder = _Search(judge, Trials(judge, state, step=step, task=task, progress=progress, work=work))
    finder.try_all()
    chosen, found = finder.conclude()
    details = found.model_dump(mode="json")
    done = StepRecord(
        kind="auto",
        summary=found.message,
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        details=details,
    )
    return _named(chosen, step, found), done


class _Search:
    """Tries one plan after the other."""

    def __init__(self, judge: Judge, trials: Trials) -> None:
        self.judge, self.trials = judge, trials
        self.step = trials.step
        self.winner: Trial | None = None
        self.problem: Problem | None = None

    def try_all(self) -> None:
        """Go through the candidates until one is good."""
        words = list(self.step.candidates)
        if {"int8", "w4a8"} <= set(words) and words.index("w4a8") < words.index("int8"):
            words.remove("w4a8")
            words.insert(words.index("int8") + 1, "w4a8")
        for word in words:
            if word == "w4a8" and self._last("int8") is not None:
                self._try_coarser(word)
            elif self.winner is None:
                self._try_mixed() if word == "mixed" else self._try(word, self._plan(word), work=WORK[_stem(word)])

    def _plan(self, word: str) -> Quantize:
        plan = Quantize.from_word(word)
        if plan is None:  # Auto has checked its candidates
            raise RecipeError(f"auto: unknown candidate '{word}'.")
        return plan.replace(sample_count=self.step.sample_count)

    def _try(self, label: str, plan: Quantize, *, work: float) -> Trial:
        trial = self.trials.carry_out(label, plan, work=work)
        if trial.outcome in {"passed", "unproven"}:
            self.winner = trial
        return trial

    def _last(self, word: str) -> Trial | None:
        return next((trial for trial in reversed(self.trials.done) if trial.label == word), None)

    def _try_coarser(self, word: str) -> None:
        """4-bit weights, where 8-bit ones did well; the winner stays if they do not."""
        before = self._last("int8")
        if before is not None and before.outcome == "missed":
            self.trials.skip(word, "int8 missed the bound, and has the same activations and finer weights")
        elif (
            before is not None
            and before.drop_points is not None
            and self.trials.narrowed_bytes(before) < _WORTH * before.weights_bytes
        ):
            saved = self.trials.narrowed_bytes(before)
            self.trials.skip(word, f"4 bits would save only {saved} of {before.weights_bytes} bytes: tables of rows keep 8")
        elif self.winner is None or self.winner.label == "int8":
            self._try(word, self._plan(word), work=WORK[word])

    def _try_mixed(self) -> None:
        for _ in range(_MIXED_ROUNDS):
            known = [trial for trial in self.trials.done if trial.drop_points is not None]
            base = next((trial for trial in reversed(known) if trial.label.startswith(("int8", "mixed"))), None)
            if base is None and self._last("int8") is None:
                base = self._try("int8", self._plan("int8"), work=1.0)
                if self.winner is not None or base.outcome == "failed":
                    return
            goal = self._noise_share(base) if base is not None and base.drop_points is not None else math.inf
            problem = self.problem = self.problem or self._measure()
            found = allocate(problem, noise_share=goal, relief=self._relief(), size_bytes=self._room(problem))
            if not found.is_enough or found.work > _DEAREST_MIX or not found.words:
                self.trials.skip("mixed", _why_not(found.work, goal, is_enough=found.is_enough))
                return
            plan = self._plan("int8").replace(layers=exceptions(found.words, problem.layers))
            counts = ", ".join(f"{list(found.words.values()).count(word)} {word}" for word in dict.fromkeys(found.words.values()))
            if self._try(f"mixed ({counts})", plan, work=found.work).outcome in {"passed", "unproven"}:
                return

    def _noise_share(self, base: Trial) -> float:
        """Noise that the next mix may have, over that of int8 everywhere, from what the last plan's noise did."""
        already = self.trials.noise_shares.get(base.label, 1.0)
        amplitude = _amplitude(
            drop=max(base.drop_points or 0.0, 0.0) / 100,
            change=(base.changed_points or 0.0) / 100,
            bound=self.step.max_drop / 100,
            count=self.judge.count,
            can_prove=self.judge.can_prove,
        )
        share = already * amplitude**2
        self.trials.next_share = share
        return share

    def _room(self, problem: Problem) -> int | None:
        """Bytes that the weights may take, when what is not weights has had its share."""
        if self.step.size_bytes is None:
            return None
        int8 = self._last("int8")
        rest = int8.weights_bytes - problem.weight_bytes({}) if int8 is not None else 0.0
        return max(round(self.step.size_bytes - rest), 1)

    def _measure(self) -> Problem:
        trials = self.trials
        study = begin_study(
            trials.state, step=self._plan("int8"), task=trials.task, sample_count=_NOISE_SAMPLES, progress=trials.progress
        )
        count = len(study.samples)
        noise = measure_noise(
            study.simulation, study.samples, progress=lambda done: trials.progress("measure layers", done, count)
        )
        return Problem(study.plan, noise)

    def _relief(self) -> tuple[str, ...]:
        wide = bool(self.step.targets) and not _TARGETS_WITHOUT_WIDE & set(self.step.targets)
        return ("w8a16", "w8", "fp16") if wide else ("w8", "fp16")

    def conclude(self) -> tuple[Compressed, SearchReport]:
        """The program of the winner or the nearest miss, and the report."""
        judged = [trial for trial in self.trials.done if trial.drop_points is not None]
        if not judged:
            reasons = "; ".join(f"{trial.label}: {trial.reason or trial.outcome}" for trial in self.trials.done)
            raise RecipeError(
                f"'auto' could not carry out any of its candidates ({reasons}). Name others, or lift the size bound."
            )
        chosen = self.winner or min(judged, key=lambda trial: (trial.highest_drop_points or math.inf, trial.work))
        passed = chosen.outcome == "passed"
        missed = [trial for trial in judged if trial.outcome == "missed" and _is_integer(trial)]
        binding: tuple[BindingLayer, ...] = ()
        if self.winner is None and missed:
            nearest = min(missed, key=lambda trial: trial.highest_drop_points or math.inf)
            binding = find_binding(self.judge, self.trials.state, plan=Quantize.parse(nearest.plan, source=nearest.label),
                                   task=self.trials.task, progress=self.trials.progress)  # fmt: skip
        report = SearchReport(
            metric=self.trials.task.metric.name,
            float_value=self.judge.float_value,
            max_drop=self.step.max_drop,
            confidence=self.step.confidence,
            sample_count=self.judge.count,
            smallest_bound=self.judge.smallest_bound,
            passed=passed,
            chosen=chosen.label,
            trials=tuple(self.trials.done),
            pareto=_pareto(judged),
            binding=binding,
            message=_message(chosen, self.step, self.judge),
        )
        return self.trials.program_of(chosen), report


def _amplitude(*, drop: float, change: float, bound: float, count: int, can_prove: bool) -> float:
    """By what the noise's amplitude must be multiplied so that the bound would be kept, 0 to 1.

    Drop and share of changed answers are taken to be proportional to the amplitude; with the changed share ``f`` the mean of
    ``count`` differences has variance ``f / count``.
    """
    z = 1.64 if can_prove else 0.0

    def upper(factor: float) -> float:
        return factor * drop + z * math.sqrt((factor * change + 1.0 / count) / count)

    low, high = 0.0, 1.0
    if upper(1.0) <= bound:
        return 0.7  # by this it should have passed already: ask for clearly less
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if upper(middle) <= bound else (low, middle)
    return max(low, 1e-3)


def _why_not(work: float, share: float, *, is_enough: bool) -> str:
    less = f"the noise would have to fall by {-10 * math.log10(max(share, 1e-12)):.0f} dB"
    if not is_enough:
        return f"{less}, more than freeing layers can do within the bounds"
    return f"{less}: that frees so many layers that it takes {work:.1f} times the work of int8"


def _stem(word: str) -> str:
    return word.removesuffix("-qat").removesuffix("-exact").split("-g")[0]


def _is_integer(trial: Trial) -> bool:
    return trial.plan.get("activations") in {"int8", "int16"}


def _pareto(judged: list[Trial]) -> tuple[str, ...]:
    def beats(one: Trial, other: Trial) -> bool:
        pairs = [
            (one.weights_bytes, other.weights_bytes), (one.work, other.work), (one.drop_points or 0.0, other.drop_points or 0.0),
        ]  # fmt: skip
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return tuple(trial.label for trial in judged if not any(beats(other, trial) for other in judged))


def _message(chosen: Trial, step: Auto, judge: Judge) -> str:
    drop = f"drop {chosen.drop_points:.2f}, at most {chosen.highest_drop_points:.2f} points of {judge.task.metric.name}"
    sure = f"{step.confidence:.0%} sure, {chosen.sample_count} samples"
    if chosen.outcome == "passed":
        return f"{chosen.label} keeps the bound of {step.max_drop:g} points: {drop} ({sure})"
    if chosen.outcome == "unproven":
        return (
            f"{chosen.label} keeps the bound of {step.max_drop:g} points on this data ({drop}), but {judge.count} samples"
            f" can show no bound below {judge.smallest_bound:.2f} points even for identical answers. Give more evaluation data."
        )
    return (
        f"No plan was shown to keep the bound of {step.max_drop:g} points; the nearest is {chosen.label}: {drop} ({sure})."
        " It was kept."
    )


def _named(chosen: Compressed, step: Auto, found: SearchReport) -> Compressed:
    """The program under a recipe that names the plan itself, so that it can be repeated without searching."""
    recipe = chosen.recipe
    plan = next(trial.plan for trial in found.trials if trial.label == found.chosen)
    steps = tuple(Quantize.parse(plan, source="auto") if one == step else one for one in recipe.steps)
    recipe = recipe.replace(name=f"{recipe.name} ({found.chosen})", steps=steps)
    return dataclasses.replace(chosen, record=chosen.record.replace(recipe=recipe.model_dump(mode="json")))
