"""What only an Android device says of itself: chip, clusters of cores, battery, heat.

The rest comes from :mod:`edgekit.device_tests.remote.facts`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import resources

from edgekit.core.device_link import Link
from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain

__all__ = ["Cluster", "android_facts", "read_android", "read_clusters"]

_TIMEOUT_S = 60.0
_END = "end: android"
_SENSIBLE_C = (-40.0, 150.0)
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""``Temperature.THROTTLING_*`` of Android's thermal service, by number."""
_EMULATED_HARDWARE = ("goldfish", "ranchu", "cutf")
"""``ro.hardware`` of Android's emulator, old and new, and of Cuttlefish."""
_POWERED = ("battery AC powered", "battery USB powered", "battery Wireless powered")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Cores of one kind, which share a clock.

    Args:
        name: ``"big"`` for the fastest, ``"little"`` for the slowest, ``"middle"`` between; ``""`` where all are alike.
        processors: Their numbers.
        clock_mhz: Highest clock; 0 where it cannot be read.
        governor: Who sets the clock; empty where it cannot be read.
    """

    name: str
    processors: tuple[int, ...]
    clock_mhz: int
    governor: str

    def __str__(self) -> str:
        named = f"{self.name} " if self.name else ""
        clock = f", {self.clock_mhz} MHz" if self.clock_mhz else ""
        governor = f", {self.governor}" if self.governor else ""
        return f"{named}{affinity(self.processors)}{clock}{governor}"


def affinity(processors: tuple[int, ...]) -> str:
    """Processors as a profile's ``affinity`` writes them.

    >>> affinity((0, 1, 2, 3, 7))
    '0-3,7'
    """
    ranges: list[list[int]] = []
    for number in sorted(processors):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def android_facts(link: Link) -> tuple[dict[str, str], tuple[Cluster, ...]]:
    """Facts by name, and the clusters, fastest first.

    Args:
        link: A connected link.

    Raises:
        DeviceError: The connection was lost.
    """
    script = resources.files("edgekit.device_tests.transports.adb").joinpath("android.sh").read_bytes()
    answer = link.run("sh -s", timeout_s=_TIMEOUT_S, given=script)
    if _END not in answer.output.splitlines():
        words = plain(answer.errors.strip() or answer.output.strip(), most=300) or "nothing"
        raise DeviceError(f"The device did not say what it is: its shell answered {words}.")
    return read_android(answer.output), read_clusters(answer.output)


def read_android(text: str) -> dict[str, str]:
    r"""The facts in what ``android.sh`` printed. A device that names no Android release keeps the system it told before.

    >>> read_android("maker: Google\nmodel: Pixel 8\nsoc: Tensor G3\nrelease: 14\nsdk: 34\nkernel: 5.15\n")
    {'model': 'Google Pixel 8', 'processor': 'Tensor G3', 'system': 'Android', 'system version': '14 (SDK 34), kernel 5.15'}
    """
    raw = {key: plain(value, most=400).strip() for key, _, value in (line.partition(": ") for line in text.splitlines())}
    found: dict[str, str] = {}
    if model := raw.get("model", ""):
        maker = raw.get("maker", "")
        found["model"] = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    if soc := raw.get("soc") or raw.get("board"):
        found["processor"] = f"{raw.get('soc-maker', '')} {soc}".strip()
    if release := raw.get("release"):
        found["system"] = "Android"
        found["system version"] = f"{release} (SDK {raw.get('sdk', 'unknown')}), kernel {raw.get('kernel', 'unknown')}"
    if abi := raw.get("abi"):
        found["ABI"] = abi
    if is_emulator(raw.get("emulator", "")):
        found["emulator"] = "yes: this is no device"
    if clusters := read_clusters(text):
        found["clusters"] = "; ".join(str(one) for one in clusters)
    found.update(_condition(raw))
    return found


def read_clusters(text: str) -> tuple[Cluster, ...]:
    r"""The clusters in what ``android.sh`` printed, fastest first.

    >>> [str(one) for one in read_clusters("cluster: 1800000 schedutil 0 1 2 3\ncluster: 2850000 schedutil 4\n")]
    ['big 4, 2850 MHz, schedutil', 'little 0-3, 1800 MHz, schedutil']
    """
    found: list[tuple[int, str, tuple[int, ...]]] = []
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        words = value.split()
        numbers = [int(word) for word in words[2:] if word.isdecimal()]
        if key == "cluster" and numbers:
            found.append((int(words[0]) // 1000 if words[0].isdecimal() else 0, words[1].strip("-"), tuple(numbers)))
    found.sort(key=lambda one: (-one[0], one[2]))
    clocks = sorted({clock for clock, _, _ in found})
    return tuple(Cluster(_name(clock, clocks), numbers, clock, governor) for clock, governor, numbers in found)


def _name(clock_mhz: int, clocks: list[int]) -> str:
    if len(clocks) < 2:
        return ""
    return {clocks[-1]: "big", clocks[0]: "little"}.get(clock_mhz, "middle")


def is_emulator(words: str) -> bool:
    """Whether Android runs in an emulator, by what it says of qemu and of its hardware.

    >>> is_emulator("1 ranchu"), is_emulator(" cutf_cvm"), is_emulator(" shiba"), is_emulator("0 qcom")
    (True, True, False, False)
    """
    return any(word == "1" or word.startswith(_EMULATED_HARDWARE) for word in words.split())


def _condition(raw: Mapping[str, str]) -> dict[str, str]:
    """What may slow the device down: heat, an empty battery, a dark screen."""
    found = {}
    tenths, thousandths = raw.get("battery temperature", ""), raw.get("zone", "")
    celsius = int(tenths) / 10 if tenths.isdecimal() else int(thousandths) / 1000 if thousandths.isdecimal() else None
    if celsius is not None and _SENSIBLE_C[0] < celsius < _SENSIBLE_C[1]:
        found["battery temperature"] = f"{celsius:.1f} °C"
    if level := raw.get("battery level"):
        powered = any(raw.get(key) == "true" for key in _POWERED)
        found["battery"] = f"{level} %, {'charging' if powered else 'not charging'}"
    status = raw.get("thermal", "")
    if status.isdecimal() and int(status) < len(_THERMAL):
        found["thermal status"] = _THERMAL[int(status)]
    if screen := raw.get("screen"):
        found["screen"] = "on" if screen == "Awake" else f"off ({screen})"
    if raw.get("saving") in {"0", "1"}:
        found["battery saver"] = "on" if raw["saving"] == "1" else "off"
    return found
