"""``edgekit doctor``: what is installed, and what works here."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from edgekit.cli.options import command

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.plugins import Framework

__all__ = ["doctor"]

_GROUPS = {"sources": "source", "converters": "target", "runtimes": "runtime"}
_BUNDLES = {"all", "demo", "dev"}
"""Extras that only gather others, and the one for working on edgekit itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A source, converter or runtime, and whether it works here.

    Args:
        kind: ``"source"``, ``"target"`` or ``"runtime"``.
        name: Its name in the registry.
        ready: It works here.
        note: The version that works, or what is in the way.
    """

    kind: str
    name: str
    ready: bool
    note: str = ""


@command(examples=["doctor", "doctor --json"])
def doctor(terminal: Terminal) -> None:
    """Show what is installed, which extras are missing, and which targets and runtimes work here.

    Nothing heavy is imported, and nothing is installed.
    """
    from edgekit.core.run import tool_versions

    parts = [_examine(group, name) for group in _GROUPS for name in _names(group)]
    missing = _missing_packages()
    machine = {"cores": str(os.cpu_count()), "memory": f"{_memory_bytes() / 2**30:.1f} GiB", "platform": platform.platform()}
    versions = tool_versions()
    document = {
        "machine": machine,
        "versions": versions,
        "parts": [dataclasses.asdict(part) for part in parts],
        "missing_packages": {extra: {"packages": names, "command": _pip(extra)} for extra, names in missing.items()},
    }
    terminal.finish(document, lambda console: _print(console, {**machine, **versions}, parts, missing))


def _names(group: str) -> tuple[str, ...]:
    from edgekit import registry

    return registry.names(group)


def _examine(group: str, name: str) -> Part:
    from edgekit import registry
    from edgekit.core.errors import MissingExtraError

    kind = _GROUPS[group]
    try:
        registry.require(_part(group, name))
        note = registry.runtime(name).version() if group == "runtimes" else ""
    except MissingExtraError as reason:
        return Part(kind=kind, name=name, ready=False, note=f"not installed: {_pip(reason.extra)}")
    except Exception as reason:  # a plug-in may fail in any way; the doctor says how and goes on
        return Part(kind=kind, name=name, ready=False, note=str(reason))
    systems = _systems_of(name) if group == "runtimes" else set()
    if systems and platform.system() not in systems:
        return Part(kind=kind, name=name, ready=False, note=f"works on {', '.join(sorted(systems))} only")
    return Part(kind=kind, name=name, ready=True, note=note)


def _part(group: str, name: str) -> Framework:
    from edgekit import registry

    match group:
        case "sources":
            return registry.sources()[name]
        case "converters":
            return registry.converter(name)
    return registry.runtime(name)


def _systems_of(runtime: str) -> set[str]:
    """The operating systems the host profile uses a runtime on, where it is not used on all."""
    from edgekit.device_tests.profiles import load_profile

    profile = load_profile("host")
    if runtime in {choice.runtime for choice in profile.runtimes.values()}:
        return set()
    return {system for system, table in profile.systems.items() if runtime in {choice.runtime for choice in table.values()}}


def _missing_packages() -> dict[str, list[str]]:
    """Extra -> its packages that are not installed, for every extra that is not whole."""
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("edgekit") or []:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and extra[1] not in _BUNDLES and not _is_installed(name[0]):
            missing.setdefault(extra[1], []).append(name[0])
    return missing


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _pip(extra: str) -> str:
    return f"pip install 'edgekit[{extra}]'"


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _print(console: Console, facts: dict[str, Any], parts: list[Part], missing: dict[str, list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        table.add_row(Text(name, style="dim"), Text(value))
    console.print(table)
    console.print()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for part in parts:
        mark = Text("✓", style="green") if part.ready else Text("✗", style="yellow")
        table.add_row(Text(part.kind, style="dim"), mark, Text(part.name, style="bold"), Text(part.note))
    console.print(table)
    if missing:
        console.print()
    for extra, packages in missing.items():
        line = f"extra '{extra}' lacks {', '.join(packages)}: {_pip(extra)}"
        console.print(line, markup=False, soft_wrap=True)
