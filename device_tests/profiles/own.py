"""Profiles of a user's own devices: written from what a device was found to be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.errors import OutputError, ProfileError, UsageError
from edgekit.core.files import write_text
from edgekit.core.profile import processors
from edgekit.device_tests.profiles.folders import find, own_folder, path_of_name
from edgekit.device_tests.profiles.inheritance import chain, merged, read_layers
from edgekit.device_tests.profiles.instructions import instructions_of

__all__ = ["base_table", "need_base", "new_path", "own_table", "read_address", "write_own"]

_HEAD = "# Written by 'edgekit devices add' from what the device said of itself. Edit it as you like.\n\n"
_ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^@:\s\[\]]+)(?::(?P<port>\d{1,5}))?")


def read_address(text: str) -> dict[str, str | int]:
    """``USER@HOST[:PORT]`` as the keys of a profile's ``connection``.

    >>> read_address("pi@raspberrypi.local:2222")
    {'host': 'raspberrypi.local', 'user': 'pi', 'port': 2222}
    >>> read_address("root@[fe80::1]")
    {'host': 'fe80::1', 'user': 'root'}

    Raises:
        UsageError: It is no address.
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"'{text}' is no address: write USER@HOST or USER@HOST:PORT, an IPv6 address as USER@[ADDRESS]:PORT.")
    address: dict[str, str | int] = {"host": found["host"].strip("[]")}
    if found["user"]:
        address["user"] = found["user"]
    if found["port"]:
        address["port"] = int(found["port"])
    return address


def new_path(name: str, *, force: bool) -> Path:
    """Where the profile of a new device of one's own goes.

    Raises:
        UsageError: The name cannot be one.
        OutputError: There is such a profile, and it is not to be replaced.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) or name.endswith(".toml"):
        raise UsageError(
            f"'{name}' cannot be a device's name: use letters, digits, '-', '_', '.' and '+', and no '.toml' at the end."
        )
    path = own_folder() / f"{name}.toml"
    if path.exists() and not force:
        raise OutputError(f"{path} is there already. Choose another name, or replace it with --force.")
    if not force and path_of_name(name) is not None:
        raise OutputError(
            f"'{name}' is a built-in profile, which yours would hide. Choose another name, or hide it with --force."
        )
    return path


def base_table(base: str) -> dict[str, Any]:
    """What a profile that extends ``base`` would inherit.

    Raises:
        ProfileError: There is no such profile; gives the nearest names.
    """
    named = path_of_name(base)
    return merged(chain(read_layers(named if named is not None else find(base))[0]))


def own_table(
    name: str,
    *,
    base: str,
    transport: str,
    connection: Mapping[str, str | int | float | bool],
    facts: Mapping[str, str],
    runtimes: Mapping[str, str],
) -> dict[str, Any]:
    """The table of a device's profile: what it inherits is left out.

    Args:
        name: Its name.
        base: What it extends.
        transport: How it is reached.
        connection: Settings of the transport.
        facts: What the device says of itself.
        runtimes: Target -> the runtime found on it.
    """
    inherited, is_generic = base_table(base), base.startswith("_")
    reached = " ".join(str(connection[key]) for key in ("serial", "host") if key in connection)
    table: dict[str, Any] = {
        "name": name,
        "extends": base,
        "title": f"{facts.get('model') or (is_generic and facts.get('processor')) or inherited.get('title', 'device')} ({name})",
        "transport": transport,
        "attach": f"Reached at {reached} by {transport}; 'edgekit devices check {name}' says whether it is there.",
        "connection": {**_cleared(inherited.get("connection", {}), connection), **connection},
    }
    hardware = _hardware(facts, inherited.get("hardware", {}), is_generic=is_generic)
    if hardware:
        table["hardware"] = hardware
    table |= _fitted(inherited, {**inherited.get("hardware", {}), **hardware})
    if changed := _runtimes(inherited.get("runtimes", {}), runtimes):
        table["runtimes"] = changed
    return {key: value for key, value in table.items() if inherited.get(key) != value}


def write_own(path: Path, table: Mapping[str, Any]) -> str:
    """Write a profile once it is known to load; returns the text.

    Raises:
        ProfileError: It would not load; nothing was written.
        OutputError: The folder cannot be written.
    """
    import tomli_w

    from edgekit.device_tests.profiles import parse_profiles

    text = _HEAD + tomli_w.dumps(table)
    parse_profiles(text, path)
    write_text(path, text)
    return text


def _cleared(inherited: Mapping[str, Any], connection: Mapping[str, Any]) -> dict[str, Any]:
    """A base's agent that does not fit: a Python was found where it says there is none."""
    return {"agent": "python"} if inherited.get("agent") == "native" and "agent" not in connection else {}


def _runtimes(inherited: Mapping[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    """What differs from the base: other runtimes, and ``false`` for those that are not there."""
    changed: dict[str, Any] = {}
    for target in {**inherited, **found}:
        if target not in found:
            changed[target] = False
        elif inherited.get(target, {}).get("runtime") != found[target]:
            changed[target] = {"runtime": found[target]}
    return changed


def _hardware(facts: Mapping[str, str], inherited: Mapping[str, Any], *, is_generic: bool) -> dict[str, Any]:
    """What the device says of its hardware: all where the base is no device, else what the base leaves open or says wrongly."""
    cores = facts.get("cores", "").split(" ")[0]
    amount, _, unit = facts.get("memory", "").partition(" ")
    said: dict[str, Any] = {
        "processor": facts.get("processor", ""),
        "architecture": facts.get("architecture", ""),
        "core_count": int(cores) if cores.isdecimal() else 0,
        "memory_bytes": int(float(amount) * 2**30) if unit == "GiB" else 0,
        "instructions": list(instructions_of(facts)),
    }
    wanted = said if is_generic else {key: said[key] for key in said if key not in inherited or key == "architecture"}
    return {key: value for key, value in wanted.items() if value and value != inherited.get(key)}


def _fitted(inherited: Mapping[str, Any], hardware: Mapping[str, Any]) -> dict[str, Any]:
    """What the base says of threads, processors and memory, where this device has fewer."""
    cores, memory = hardware.get("core_count"), hardware.get("memory_bytes")
    fitted: dict[str, Any] = {}
    if cores and inherited.get("threads", 1) > cores:
        fitted["threads"] = cores
    if cores and (chosen := processors(inherited.get("affinity", ""))) and chosen[-1] >= cores:
        fitted["affinity"] = ""
    if memory and inherited.get("budgets", {}).get("peak_memory_bytes", 0) > memory:
        fitted["budgets"] = {"peak_memory_bytes": memory // 2}
    return fitted


def need_base(base: str, facts: Mapping[str, str]) -> str:
    """The base that was found for a device.

    Raises:
        ProfileError: There is none.
    """
    if base:
        return base
    what = f"{facts.get('system', 'an unknown system')} on {facts.get('architecture', 'an unknown processor')}"
    raise ProfileError(f"The device runs {what}, and no shipped profile is near to it. Name one to start from: --extends NAME")
