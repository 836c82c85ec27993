"""How device profiles, and what was found on devices, look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.core.profile import DeviceProfile
    from edgekit.device_tests.attachment import Examination
    from edgekit.device_tests.catalogue import Listed

__all__ = ["draw_examinations", "draw_list", "draw_profiles"]

_COLUMNS = ("name", "device", "architecture", "reached by", "targets", "numbers", "ready")
_WIDE = 148
"""Letters of a line where there is no terminal."""
_LEAST_DEVICE = 20
"""Letters of a device's long name, below which it is left out."""
_GAP = 2
_LEAST = {"layer_within_share"}
"""Limits below which a number may not lie; all others are the most it may be."""
_BYTES = "_bytes"
_UNITS = {"_ms": " ms", "_mj": " mJ", "_points": " points"}


def draw_list(console: Console, found: Sequence[Listed]) -> None:
    """One line for each profile."""
    if not found:
        return
    if not console.is_terminal:  # a file or a pipe is as wide as it has to be
        console.width = max(console.width, _WIDE)
    console.print(_list_table([_cells(one) for one in found], width=console.width))
    for one in found:
        if one.profile is None:
            console.print(Text(f"{one.name}: {one.obstacle}", "red"), soft_wrap=True)
    if not all(one.is_ready for one in found):
        console.print(Text("'edgekit devices show NAME' says how to attach a device that is not ready.", "dim"), soft_wrap=True)


def _list_table(rows: Sequence[Mapping[str, Text]], *, width: int) -> Table:
    """The rows, without the columns that a narrow terminal has no room for; names are never cut."""
    natural = {title: max(len(title), *(row[title].cell_len for row in rows)) + _GAP for title in _COLUMNS}
    natural["device"] = _LEAST_DEVICE + _GAP
    titles = list(_COLUMNS)
    for title in ("device", "architecture", "targets", "numbers"):
        if sum(natural[kept] for kept in titles) > width:
            titles.remove(title)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
    room = width - sum(natural[kept] for kept in titles if kept != "device") - _GAP
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=room if title == "device" else None)
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    return table


def _cells(one: Listed) -> dict[str, Text]:
    """A profile's line, by column."""
    if one.profile is None:
        cells = {"name": Text(one.name, "bold red"), "device": Text("cannot be read", "red"), "ready": Text("no", "red")}
        return {title: cells.get(title, Text()) for title in _COLUMNS}
    return {
        "name": Text(one.name, "bold" if one.origin != "built-in" else ""),
        "device": Text(one.profile.title),
        "architecture": Text(one.profile.hardware.architecture or ""),
        "reached by": Text(one.profile.transport),
        "targets": Text(" ".join(one.profile.runtimes)),
        "numbers": Text(one.evidence),
        "ready": Text("yes", "green") if one.is_ready else Text("no", "dim"),
    }


def draw_profiles(console: Console, profiles: Sequence[DeviceProfile]) -> None:
    """All that profiles say."""
    for profile in profiles:
        _draw_profile(console, profile)


def draw_examinations(console: Console, found: Sequence[Examination]) -> None:
    """What devices were found to be."""
    for one in found:
        _draw_examination(console, one)


def _draw_profile(console: Console, profile: DeviceProfile) -> None:
    from edgekit.device_tests.attachment import obstacle_of

    console.print(Text.assemble((profile.name, "bold"), f"  {profile.title}"), soft_wrap=True)
    table = _table()
    hardware = profile.hardware
    _row(table, "class", profile.device_class)
    _row(table, "processor", hardware.processor)
    _row(table, "cores", "; ".join(hardware.clusters) or str(hardware.core_count or ""))
    _row(table, "architecture", " ".join([hardware.architecture or "", *hardware.instructions]))
    _row(table, "memory", _amount("memory_bytes", hardware.memory_bytes))
    _row(table, "flash", _amount("storage_bytes", hardware.storage_bytes))
    _row(table, "accelerators", "; ".join(hardware.accelerators))
    _row(table, "system", profile.operating_system)
    _row(table, "reached by", " ".join([profile.transport, *(f"{key}={value}" for key, value in profile.connection.items())]))
    for target, choice in profile.runtimes.items():
        options = "".join(f", {key}={value}" for key, value in choice.options.items())
        _row(table, target, f"{choice.runtime}{options}; numbers are {choice.evidence.value}")
    affinity = f" on processors {profile.affinity}" if profile.affinity else ""
    _row(table, "threads", f"{profile.threads}{affinity}")
    _row(table, "memory limit", _amount("memory_bytes", profile.memory_limit_bytes))
    _row(table, "samples", f"at most {profile.evaluation_samples:,}" if profile.evaluation_samples else "")
    _row(table, "budgets", _limits(profile.budgets.model_dump(exclude_none=True)))
    _row(table, "tolerances", _limits(profile.tolerances.model_dump(exclude_none=True)))
    obstacle = obstacle_of(profile)
    _row(table, "ready", Text("no: ", "yellow").append(obstacle) if obstacle else Text("yes", "green"))
    _row(table, "to attach", profile.attach)
    for number, source in enumerate(profile.sources):
        _row(table, "" if number else "sources", source)
    console.print(table)


def _draw_examination(console: Console, found: Examination) -> None:
    from edgekit.device_tests.profiles.instructions import instructions_of

    state = (
        Text("not reached", "red")
        if found.unreached
        else Text("lacks something", "yellow")
        if found.missing
        else Text("ready", "green")
    )
    console.print(Text.assemble((found.name, "bold"), "  ", state), soft_wrap=True)
    table = _table()
    if found.unreached:
        _row(table, "why", found.unreached)
    for title, value in found.facts.items():
        _row(table, title, " ".join(instructions_of(found.facts)) if title == "instructions" else value)
    for target, runtime in found.runtimes.items():
        _row(table, target, runtime)
    for number, lacking in enumerate(found.missing):
        _row(table, "" if number else "missing", Text(lacking, "yellow"))
    for number, remark in enumerate(found.remarks):
        _row(table, "" if number else "differs", Text(remark))
    console.print(table)


def _table() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _row(table: Table, title: str, value: str | Text | None) -> None:
    text = value if isinstance(value, Text) else Text((value or "").strip())
    if text.plain:
        table.add_row(f"  {title}", text)


def _limits(values: Mapping[str, object]) -> str:
    """``latency p90 ≤ 5 ms``, for every limit that is set."""
    return "; ".join(
        f"{_title(name)}{_sign(name, value)} {_amount(name, value)}" for name, value in values.items() if value != ""
    )


def _sign(name: str, value: object) -> str:
    if isinstance(value, str):
        return ""
    return " ≥" if name in _LEAST else " ≤"


def _title(name: str) -> str:
    for suffix in (_BYTES, *_UNITS):
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def _amount(name: str, value: object) -> str:
    if value is None:
        return ""
    if name.endswith(_BYTES) and isinstance(value, int):
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value >= size:
                return f"{value / size:.4g} {unit}"
        return f"{value} bytes"
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    return f"{value:g}{unit}" if isinstance(value, int | float) else str(value)
