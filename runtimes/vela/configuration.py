"""Which Ethos-U, in which system: Vela's accelerators, system configurations and memory modes, checked before it is called.

Vela itself takes a system configuration of another family without a word; the numbers then mean nothing. ``OPTIONS.md`` of
https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela describes the files.
"""

from __future__ import annotations

import configparser
import dataclasses
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgekit.core.errors import MissingExtraError, UsageError, nearest
from edgekit.core.runtime_options import RuntimeOption, read_settings
from edgekit.runtimes.tflite_micro.runtime import plain_settings

__all__ = ["MACS_PER_CYCLE", "OPTIONS", "Configuration", "read_configuration"]

MACS_PER_CYCLE = {
    "ethos-u55-32": 32, "ethos-u55-64": 64, "ethos-u55-128": 128, "ethos-u55-256": 256,
    "ethos-u65-256": 256, "ethos-u65-512": 512,
    "ethos-u85-128": 128, "ethos-u85-256": 256, "ethos-u85-512": 512, "ethos-u85-1024": 1024, "ethos-u85-2048": 2048,
}  # fmt: skip
"""Accelerator -> 8-bit multiply-accumulates a cycle, which is what its name says."""

ARM_FILE = "Arm/vela.ini"
"""Arm's own configurations, inside the package."""
_DEFAULTS = {
    "u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u65": ("Ethos_U65_Client_Server", "Dedicated_Sram_384KB"),
    "u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}
"""Family -> system configuration and memory mode Vela 5.2 takes where none is named (``architecture_features.py``)."""
_SYSTEMS = (
    "Ethos_U55_Deep_Embedded", "Ethos_U55_High_End_Embedded", "Ethos_U65_Embedded", "Ethos_U65_Mid_End", "Ethos_U65_High_End",
    "Ethos_U65_Client_Server", "Ethos_U85_SYS_Flash_Low", "Ethos_U85_SYS_Flash_High", "Ethos_U85_SYS_DRAM_Low",
    "Ethos_U85_SYS_DRAM_Mid", "Ethos_U85_SYS_DRAM_High",
)  # fmt: skip
_MEMORY_MODES = (
    "Sram_Only", "Shared_Sram", "Dedicated_Sram", "Dedicated_Sram_256KB", "Dedicated_Sram_384KB", "Dedicated_Sram_512KB",
)  # fmt: skip

OPTIONS = (
    RuntimeOption(
        name="accelerator", kind="choice", default="ethos-u55-128", values=tuple(MACS_PER_CYCLE),
        meaning="The NPU and how many multiply-accumulates it does in a cycle.",
    ),
    RuntimeOption(
        name="system_config", kind="text", default="", values=_SYSTEMS,
        meaning="Clock and memories around it, a System_Config of the configuration file; empty: Vela's default for the NPU.",
    ),
    RuntimeOption(
        name="memory_mode", kind="text", default="", values=_MEMORY_MODES,
        meaning="Which memory holds arena and weights, a Memory_Mode of that file; empty: Vela's default for the NPU.",
    ),
    RuntimeOption(
        name="optimise", kind="choice", default="Performance", values=("Performance", "Size"),
        meaning="Whether Vela schedules for few cycles or for little SRAM.",
    ),
    RuntimeOption(
        name="arena_cache_size", kind="text", default="",
        meaning="SRAM in bytes that Vela may use for performance; empty: what the memory mode says.",
    ),
    RuntimeOption(
        name="clock_mhz", kind="text", default="",
        meaning="Clock at which cycles become time, its memories' clocks scaled with it; empty: the system configuration's.",
    ),
    RuntimeOption(
        name="config", kind="text", default=ARM_FILE, values=(ARM_FILE,),
        meaning="Arm's configurations, or the path of a chip vendor's vela.ini.",
    ),
)  # fmt: skip
"""Options of the runtime; see :class:`Configuration`."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What Vela compiles for.

    Args:
        accelerator: As Vela spells it.
        system_config: Section of the configuration file, without ``System_Config.``.
        memory_mode: The same, without ``Memory_Mode.``.
        optimise: ``"Performance"`` or ``"Size"``.
        arena_cache_size: Bytes; None: the memory mode's.
        clock_mhz: Clock at which cycles become time; None: the system configuration's.
        config: ``"Arm/vela.ini"`` or a path.
        constants_beside_arena: Weights lie in the memory that holds the arena.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    optimise: str
    arena_cache_size: int | None
    clock_mhz: float | None
    config: str
    constants_beside_arena: bool

    def __str__(self) -> str:
        return f"{self.accelerator}, {self.system_config}, {self.memory_mode}, optimised for {self.optimise.lower()}"


def read_configuration(options: Mapping[str, Any] | None) -> Configuration:
    """Options as a configuration that Vela knows and that fits together.

    Raises:
        UsageError: An option is unknown, names something the configuration file does not hold, or another family's system.
    """
    chosen = read_settings(plain_settings(options), OPTIONS, runtime="Vela")
    accelerator, config = str(chosen["accelerator"]), str(chosen["config"])
    family = accelerator.split("-")[1]
    file = _read_file(config)
    system = _named(
        "system_config", str(chosen["system_config"]) or _DEFAULTS[family][0], _sections(file, "System_Config"), config
    )
    if config == ARM_FILE and family not in system.lower():
        fitting = ", ".join(name for name in _sections(file, "System_Config") if family in name.lower())
        raise UsageError(
            f"Vela: option 'system_config' is '{system}', and the accelerator is '{accelerator}': for an Ethos-{family.upper()}"
            f" there are {fitting}."
        )
    mode = _named("memory_mode", str(chosen["memory_mode"]) or _DEFAULTS[family][1], _sections(file, "Memory_Mode"), config)
    areas = _memory_mode(file, mode)
    return Configuration(
        accelerator=accelerator,
        system_config=system,
        memory_mode=mode,
        optimise=str(chosen["optimise"]),
        arena_cache_size=_bytes(str(chosen["arena_cache_size"])),
        clock_mhz=_clock(str(chosen["clock_mhz"])),
        config=config,
        constants_beside_arena=areas.get("const_mem_area") == areas.get("arena_mem_area"),
    )


def _read_file(config: str) -> configparser.ConfigParser:
    path = _arm_file() if config == ARM_FILE else Path(config)
    file = configparser.ConfigParser()
    file.optionxform = str  # type: ignore[assignment, method-assign]  # the documented way to keep the case of its keys
    try:
        with path.open(encoding="utf-8") as text:
            file.read_file(text)
    except OSError as reason:
        raise UsageError(
            f"Vela: option 'config' is '{config}', which cannot be read: {reason.strerror}. Give {ARM_FILE}, or the absolute path"
            " of a vela.ini."
        ) from reason
    except (configparser.Error, UnicodeDecodeError) as reason:
        first = str(reason).splitlines()[0]
        raise UsageError(f"Vela: {config} is no configuration file: {first}. Compare it with Arm's {ARM_FILE}.") from reason
    return file


def _arm_file() -> Path:
    """Where the package keeps Arm's file; found without importing it.

    Raises:
        MissingExtraError: Vela is not installed.
    """
    found = importlib.util.find_spec("ethosu")
    for place in found.submodule_search_locations or () if found else ():
        path = Path(place) / "config_files" / ARM_FILE
        if path.is_file():
            return path
    raise MissingExtraError("micro", module="ethosu")


def _sections(file: configparser.ConfigParser, kind: str) -> list[str]:
    return [name.removeprefix(f"{kind}.") for name in file.sections() if name.startswith(f"{kind}.")]


def _named(option: str, name: str, known: Iterable[str], config: str) -> str:
    names = list(known)
    if name not in names:
        listed = ", ".join(names) or "none"
        raise UsageError(f"Vela: option '{option}' is '{name}'; {config} holds {listed}.{nearest(name, names)}")
    return name


def _memory_mode(file: configparser.ConfigParser, mode: str, depth: int = 0) -> dict[str, str]:
    """A memory mode's keys with those it inherits."""
    found = dict(file[f"Memory_Mode.{mode}"])
    base = found.pop("inherit", "").removeprefix("Memory_Mode.")
    if base and file.has_section(f"Memory_Mode.{base}") and depth < len(file.sections()):
        return _memory_mode(file, base, depth + 1) | found
    return found


def _bytes(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"Vela: option 'arena_cache_size' is '{text}'; it must be a number of bytes, such as 393216.")
    return int(text)


def _clock(text: str) -> float | None:
    if not text:
        return None
    try:
        clock_mhz = float(text)
    except ValueError:
        clock_mhz = 0.0
    if not 0 < clock_mhz < float("inf"):
        raise UsageError(f"Vela: option 'clock_mhz' is '{text}'; it must be a number of MHz, such as 400.")
    return clock_mhz
