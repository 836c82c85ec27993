"""The stage-gain table: what the program was worth after each step of its recipe, and which steps did not help.

Every number in it was found on the converted file in its runtime, but multiply-accumulates and parameters, which are counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.core.measurement import Evidence
from edgekit.core.stages import Stage
from edgekit.report import quantities, wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgekit.core.compressed import StepRecord

__all__ = ["StageRow", "render_stages", "stage_remark", "stage_rows", "stages_of"]

_ROOMY = 120
"""From this width on, intervals have columns of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage as a reader sees it; ``–`` where there is no number.

    Args:
        stage: The record behind it.
        dense: The captured program's stage.
    """

    stage: Stage
    dense: Stage

    @property
    def is_dense(self) -> bool:
        """Whether it is the captured program's own row."""
        return self.stage is self.dense

    @property
    def metric(self) -> str:
        """The metric's value."""
        return quantities.share(self.stage.metric, decimals=1)

    @property
    def change(self) -> str:
        """Change of the metric, points."""
        if self.stage.change is None or self.is_dense:
            return quantities.NOTHING
        return quantities.points(100 * self.stage.change, signed=True)

    @property
    def change_interval(self) -> str:
        """Its 95 % interval."""
        if self.stage.change_interval is None or self.is_dense:
            return quantities.NOTHING
        low, high = (quantities.points(100 * value, signed=True) for value in self.stage.change_interval)
        return f"{low} to {high}"

    @property
    def macs(self) -> str:
        """Multiply-accumulates of one sample."""
        return quantities.large(self.stage.macs)

    @property
    def parameters(self) -> str:
        """Weights and biases."""
        return quantities.large(self.stage.parameter_count)

    @property
    def size(self) -> str:
        """Size of the file."""
        return quantities.size(self.stage.timed.size_bytes if self.stage.timed else None)

    @property
    def smaller(self) -> str:
        """How many times smaller than the dense file."""
        if self.stage.timed is None or self.dense.timed is None or self.is_dense:
            return quantities.NOTHING
        return quantities.ratio(self.dense.timed.size_bytes / max(self.stage.timed.size_bytes, 1))

    @property
    def fewer_macs(self) -> str:
        """How many times fewer multiply-accumulates."""
        return quantities.NOTHING if self.is_dense else quantities.ratio(self.dense.macs / max(self.stage.macs, 1))

    @property
    def latency(self) -> str:
        """Median time of one inference."""
        return quantities.milliseconds(self.stage.timed.latency.value if self.stage.timed else None)

    @property
    def speedup(self) -> str:
        """How many times as fast as the dense file."""
        return quantities.NOTHING if self.stage.timed is None or self.is_dense else quantities.ratio(self.stage.timed.speedup)

    @property
    def speedup_interval(self) -> str:
        """Its 95 % interval."""
        if self.stage.timed is None or self.is_dense:
            return quantities.NOTHING
        low, high = (quantities.ratio(value) for value in self.stage.timed.speedup_interval)
        return f"{low.removesuffix('×')} to {high}"


def stages_of(history: Sequence[StepRecord]) -> tuple[Stage, ...]:
    """The stages that were measured, the captured program's first; empty where there was no step after it."""
    found = tuple(step.stage for step in history if step.stage is not None)
    return found if len(found) > 1 else ()


def stage_rows(stages: Sequence[Stage]) -> tuple[StageRow, ...]:
    """Rows of the table."""
    return tuple(StageRow(stage=stage, dense=stages[0]) for stage in stages)


def stage_remark(stages: Sequence[Stage]) -> str:
    """Where the numbers come from, in one sentence."""
    timed = next((stage.timed for stage in stages if stage.timed), None)
    if timed is None:
        return "Only counted: no file was made, so nothing was run."
    where = f"the {timed.target} file on '{timed.device}' ({wording.evidence_label(timed.evidence, timed.target)})"
    name = next((stage.metric_name for stage in stages if stage.metric_name), "")
    metric = f"{name}, size and times" if name else "size and times"
    return f"{metric[:1].upper()}{metric[1:]} are those of {where}; each was timed in turn with the dense file."


def render_stages(history: Sequence[StepRecord], console: Console) -> None:
    """Print the table and what there is to say about single steps; nothing where no stage was measured."""
    from edgekit.report.terminal_tables import text

    stages = stages_of(history)
    if not stages:
        return
    console.print()
    console.print(text("What each step won", style="bold"))
    console.print(_table(stages, is_roomy=console.width >= _ROOMY))
    console.print(text(stage_remark(stages), style="dim"), soft_wrap=True)
    for stage in stages:
        if stage.remark:
            console.print(text(stage.remark, style="" if stage.helped else "yellow"), soft_wrap=True)


def _table(stages: Sequence[Stage], *, is_roomy: bool) -> Table:
    from edgekit.report.terminal_tables import plain_table, text

    is_device = all(stage.timed.evidence is Evidence.MEASURED for stage in stages if stage.timed)
    time = "latency" if is_device else "time"
    change = ("points", "95 % interval") if is_roomy else ("points",)
    fast = ("speed-up", "95 % interval") if is_roomy else ("speed-up",)
    parameters = ("params",) if is_roomy else ()
    table = plain_table("after", "score", *change, "MACs", *parameters, "size", time, *fast, left=("after",))
    for row in stage_rows(stages):
        moved = (row.change, row.change_interval) if is_roomy else (row.change,)
        faster = (row.speedup, row.speedup_interval) if is_roomy else (row.speedup,)
        counted = (row.macs, row.parameters) if is_roomy else (row.macs,)
        label = row.stage.label if row.stage.helped else f"{row.stage.label} (no gain)"
        cells = (row.metric, *moved, *counted, row.size, row.latency, *faster)
        table.add_row(text(label, style="dim" if row.is_dense else ""), *cells)
    return table
