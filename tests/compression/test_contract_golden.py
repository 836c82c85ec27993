"""What the quantizer decides about a net, as a table a reviewer can read; numbers that depend on the machine are left out."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.compression.capture import capture
from edgekit.compression.quantize import RUNNER
from edgekit.core.plugins import silent
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task


def test_contract_of_the_depthwise_net(image_task: Task, golden: Callable[[str, str], None]) -> None:
    recipe = Recipe.parse_text("int8")
    state, record = RUNNER(capture(image_task, recipe=recipe), step=Quantize(), task=image_task, progress=silent)
    lines = [f"{'entry':<22} {'role':<10} {'op':<20} {'type':<6} {'axis':<5} {'shape':<18} group"]
    for entry in state.contract.entries:
        axis = "-" if entry.channel_axis is None else str(entry.channel_axis)
        shape = "x".join(map(str, entry.shape))
        lines.append(
            f"{entry.name:<22} {entry.role:<10} {entry.op:<20} {entry.dtype:<6} {axis:<5} {shape:<18} {entry.group or '-'}"
        )
    golden("contracts/depthwise.txt", "\n".join([*lines, "", record.summary, ""]))
