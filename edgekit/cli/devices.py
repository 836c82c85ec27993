"""``edgekit devices``: the device profiles there are."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import command

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.profile import DeviceProfile

__all__ = ["devices"]


@command(examples=["devices", "devices --json"])
@click.argument("profile", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def devices(terminal: Terminal, profile: tuple[Path, ...]) -> None:
    """List the built-in device profiles, and those in the PROFILE files given.

    A profile names a device's hardware, how it is reached, its runtimes, and the budgets and tolerances of the verdict.
    """
    from edgekit.device_tests.profiles import load_profile, profile_names

    sources: list[str | Path] = [*profile_names(), *profile]
    profiles = [load_profile(source).on_system(platform.system()) for source in sources]
    terminal.finish({"devices": [one.model_dump(mode="json") for one in profiles]}, lambda console: _print(console, profiles))


def _print(console: Console, profiles: Sequence[DeviceProfile]) -> None:
    from rich.table import Table
    from rich.text import Text

    for profile in profiles:
        threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
        facts = f"  {profile.title}, reached by {profile.transport}, {threads}"
        console.print(Text.assemble((profile.name, "bold"), facts), soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for target, choice in profile.runtimes.items():
            table.add_row("   ", target, choice.runtime, Text(f"numbers are {choice.evidence.value}", style="dim"))
        for name, value in _limits(profile).items():
            table.add_row("   ", "", Text(name.replace("_", " "), style="dim"), Text(f"at most {value}", style="dim"))
        console.print(table)


def _limits(profile: DeviceProfile) -> dict[str, Any]:
    budgets = profile.budgets.model_dump(exclude_none=True)
    return {**budgets, "metric_drop_points": profile.tolerances.metric_drop_points, "layer_steps": profile.tolerances.layer_steps}
