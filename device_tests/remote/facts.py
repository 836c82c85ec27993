"""What a device says of itself, asked by POSIX ``sh`` alone: Debian's dash, BusyBox, Android's toybox, macOS."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from edgekit.core.device_link import Link
from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain

__all__ = ["device_facts", "read_facts"]

_TIMEOUT_S = 60.0
_END = "end: facts"
_ZONE = "zone "
_SENSIBLE_C = range(-40, 150)
"""Zones without a sensor show 0 K, -273 °C, or the largest integer."""
_PROCESSOR_ZONES = ("cpu", "soc", "pkg", "core")


def device_facts(link: Link) -> dict[str, str]:
    """Processor, architecture, cores, memory, system, clock governor, load, temperature … as far as they can be read.

    Args:
        link: A connected link.

    Returns:
        The keys of :func:`edgekit.device_tests.host.host_facts`, and ``instructions``, ``temperature``, ``free disk``, ``model``;
        without those that the device does not tell.

    Raises:
        DeviceError: The connection was lost, or the device has no POSIX shell.
    """
    script = resources.files("edgekit.device_tests.remote").joinpath("facts.sh").read_bytes()
    answer = link.run("sh -s", timeout_s=_TIMEOUT_S, given=script)
    if _END not in answer.output.splitlines():
        words = plain(answer.errors.strip() or answer.output.strip(), most=300) or "nothing"
        raise DeviceError(f"The device did not say what it is: its shell answered {words}. edgekit needs a POSIX sh there.")
    return read_facts(answer.output)


def read_facts(text: str) -> dict[str, str]:
    r"""The facts in what ``facts.sh`` printed.

    >>> read_facts("system: Linux\nlogical: 4\nphysical: 4\nmemory-kib: 3884136\nzone cpu-thermal: 48312\nend: facts\n")
    {'system': 'Linux', 'cores': '4 logical, 4 physical', 'memory': '3.7 GiB', 'temperature': '48.3 °C (cpu-thermal)'}
    """
    pairs = [line.partition(": ") for line in text.splitlines()]
    raw = {key: plain(value, most=4000).strip() for key, colon, value in pairs if colon and value.strip()}
    plainly = ("processor", "model", "architecture", "system", "system version")
    found: dict[str, str] = {key: raw[key] for key in plainly if key in raw}
    if "processor" not in found and "model" in found:
        found["processor"] = found["model"]
    if "logical" in raw:
        found["cores"] = f"{raw['logical']} logical" + (
            f", {raw['physical']} physical" if raw.get("physical", "0") != "0" else ""
        )
    if memory := _bytes(raw, "memory-kib", 2**10) or _bytes(raw, "memory-bytes", 1):
        found["memory"] = f"{memory / 2**30:.1f} GiB"
    if "governor" in raw:
        found["governor"] = ", ".join(raw["governor"].split())
    if load := [word for word in raw.get("load", "").split() if word.replace(".", "", 1).isdigit()][:3]:
        found["load average"] = f"{', '.join(load)} (1, 5, 15 minutes)"
    if "instructions" in raw:
        found["instructions"] = " ".join(raw["instructions"].lower().split())
    if temperature := _temperature((key.removeprefix(_ZONE), value) for key, value in raw.items() if key.startswith(_ZONE)):
        found["temperature"] = temperature
    if free := _bytes(raw, "free-kib", 2**10):
        found["free disk"] = f"{free / 2**30:.1f} GiB"
    if "python" in raw:
        found["python"] = raw["python"]
    return found


def _bytes(raw: dict[str, str], key: str, unit: int) -> int:
    value = raw.get(key, "")
    return int(value) * unit if value.isdecimal() else 0


def _temperature(zones: Iterable[tuple[str, str]]) -> str:
    """The hottest zone of the processor, of any part where none is called so; kernels count thousandths of °C."""
    known = [(name, int(value) / 1000) for name, value in zones if value.lstrip("-").isdecimal()]
    known = [(name, celsius) for name, celsius in known if int(celsius) in _SENSIBLE_C and celsius]
    chosen = [zone for zone in known if any(part in zone[0].lower() for part in _PROCESSOR_ZONES)] or known
    if not chosen:
        return ""
    name, celsius = max(chosen, key=lambda zone: zone[1])
    return f"{celsius:.1f} °C ({name})"
