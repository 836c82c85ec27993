"""Plans that were carried out and judged; each finished one is kept on disk, so that a killed search goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from typing import TYPE_CHECKING, Any

from edgekit.compression.quantize import RUNNER as QUANTIZE
from edgekit.compression.search.measure import decibels
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError, EdgekitError, IntegrityError, RecipeError
from edgekit.core.search import Trial

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.compression.search.judge import Judge
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Auto, Quantize
    from edgekit.core.task import Task

__all__ = ["Trials"]

_KEY_LENGTH = 16


class Trials:
    """Carries plans out and judges them.

    Args:
        judge: Judges.
        state: The float program.
        step: The search's configuration.
        task: Brings the data.
        progress: Called as the work advances.
        work: Folder for finished trials, or None.
    """

    def __init__(self, judge: Judge, state: Compressed, *, step: Auto, task: Task, progress: Progress, work: Path | None) -> None:
        self.judge, self.state, self.step, self.task, self.progress, self.work = judge, state, step, task, progress, work
        self.fingerprint = judge.fingerprint() if work is not None else ""
        self.done: list[Trial] = []
        self.noise_shares: dict[str, float] = {}
        self.next_share = 1.0
        self.programs: dict[str, Compressed] = {}

    def carry_out(self, label: str, plan: Quantize, *, work: float) -> Trial:
        """Quantize as ``plan`` says and judge the result, unless that was done before the run was killed."""
        label = self._free(label)
        self.noise_shares[label] = self.next_share
        folder = self._folder(plan)
        trial = self._finished(folder, label)
        if trial is None:
            trial = self._carry_out(label, plan, work)
            if folder is not None and label in self.programs:
                self.programs[label].save(folder / "compressed")
                trial.write_json(folder / "trial.json")
        return self._note(trial)

    def skip(self, label: str, reason: str) -> Trial:
        """Note a plan that is not worth trying."""
        return self._note(Trial(label=self._free(label), outcome="skipped", reason=reason))

    def program_of(self, trial: Trial) -> Compressed:
        """The program a trial made."""
        return self.programs[trial.label]

    def narrowed_bytes(self, trial: Trial) -> int:
        """Bytes that the layers of an int8 program would save with 4-bit weights."""
        entries = self.programs[trial.label].contract.parameters
        return round(sum(math.prod(entry.shape) / 2 for entry in entries if entry.role == "weight" and entry.precision == "int8"))

    def _free(self, label: str) -> str:
        """A label no other trial has."""
        taken = {trial.label for trial in self.done}
        return next(name for count in range(1, 100) if (name := label if count == 1 else f"{label} #{count}") not in taken)

    def _note(self, trial: Trial) -> Trial:
        self.done.append(trial)
        self.progress(describe(trial), 1, 1)
        return trial

    def _carry_out(self, label: str, plan: Quantize, work: float) -> Trial:
        clock, cpu = time.perf_counter(), time.process_time()
        written: dict[str, Any] = {"label": label, "plan": plan.model_dump(mode="json"), "work": work}
        try:
            made, record = QUANTIZE(self.state, step=plan, task=self.task, progress=self.progress)
        except (ContractError, RecipeError) as reason:
            return Trial(**written, outcome="failed", reason=str(reason))
        made = dataclasses.replace(made, record=made.record.replace(history=(*made.record.history, record)))
        size = weights_bytes(made)
        written["weights_bytes"] = size
        if self.step.size_bytes is not None and size > self.step.size_bytes:
            return Trial(**written, outcome="too large", reason=f"{size} bytes, {self.step.size_bytes} are allowed")
        found = self.judge.judge(made.program, what=label)
        self.programs[label] = made
        return Trial(
            **written,
            outcome=found.outcome,
            value=found.value,
            drop_points=found.drop_points,
            highest_drop_points=found.highest_drop_points,
            changed_points=found.change_points,
            sample_count=found.sample_count,
            snr_db=decibels(found.noise),
            seconds=time.perf_counter() - clock,
            cpu_seconds=time.process_time() - cpu,
        )

    def _folder(self, plan: Quantize) -> Path | None:
        """Where a plan's result is kept: the name says plan, data and bound, so that none is taken for another's."""
        if self.work is None:
            return None
        text = json.dumps([plan.model_dump(mode="json"), self.fingerprint], sort_keys=True)
        return self.work / hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]

    def _finished(self, folder: Path | None, label: str) -> Trial | None:
        if folder is None or not (folder / "trial.json").is_file():
            return None
        try:
            trial = Trial.read_json(folder / "trial.json").replace(label=label)
            self.programs[label] = dataclasses.replace(Compressed.load(folder / "compressed"), folder=None)
        except (IntegrityError, EdgekitError):  # half written, or by another version: do it again
            return None
        return trial


def weights_bytes(made: Compressed) -> int:
    """Bytes that a program's constants need: integers at their width, scales, biases, and what stays float."""
    entries = {entry.node: entry for entry in made.contract.parameters}
    signature = made.program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    held: dict[str, Any] = {**made.program.state_dict, **made.program.constants}
    total = 0.0
    for node, name in names.items():
        entry = entries.get(node)
        if entry is not None and entry.dtype == "int4":
            total += math.prod(entry.shape) / 2
        elif hasattr(held.get(name), "element_size") and not name.endswith("weight_zero_point"):  # symmetric: not stored
            total += held[name].numel() * held[name].element_size()
    return round(total)


def describe(trial: Trial) -> str:
    """A trial in one short line."""
    if trial.drop_points is None:
        return f"auto: {trial.label} {trial.outcome}: {trial.reason}"
    return f"auto: {trial.label} {trial.outcome}: drop {trial.drop_points:.2f}, at most {trial.highest_drop_points:.2f} points"
