"""Which shipped profile a device is nearest to, by what it says of itself."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from edgekit.device_tests.profiles.folders import LIBRARY, built_in_names
from edgekit.device_tests.profiles.inheritance import chain, merged, read_layers

__all__ = ["generic_base", "recognise"]

_TELLING = ("model", "product", "soc", "board", "processor")
"""Facts that name a device or its processor."""
_BASES = {
    ("Linux", "aarch64", True): "_linux-arm64",
    ("Linux", "aarch64", False): "_linux-arm64-native",
    ("Linux", "x86_64", True): "_linux-x86_64",
    ("Linux", "x86_64", False): "_linux-x86_64-native",
    ("Darwin", "arm64", True): "_mac",
}
"""(system, architecture, has a Python that edgekit runs on) -> base for devices that no shipped profile is of."""


def recognise(facts: Mapping[str, str], *, transports: Iterable[str]) -> str:
    """Name of the shipped profile whose words the device's facts hold; of several the one with the longest word. Empty: none.

    Args:
        facts: What the device says of itself (:func:`edgekit.device_tests.remote.facts.device_facts`).
        transports: Only profiles that are reached so.

    >>> recognise({"model": "Raspberry Pi 4 Model B Rev 1.4"}, transports=["ssh"])
    'raspberry-pi-4'
    >>> recognise({"model": "Difference Engine No. 2"}, transports=["ssh"])
    ''
    """
    said = " | ".join(" ".join(facts[key].split()) for key in _TELLING if facts.get(key))
    reached = set(transports)
    found = [
        (len(word), name)
        for name, words, transport in _known()
        if transport in reached
        for word in words
        if re.search(_pattern(word), said, re.IGNORECASE)
    ]
    return max(found, key=lambda pair: (pair[0], pair[1]), default=(0, ""))[1]


def generic_base(facts: Mapping[str, str], *, has_python: bool) -> str:
    """Name of the shipped base for a device that no shipped profile is of; empty where there is none for its processor."""
    return _BASES.get((facts.get("system", ""), facts.get("architecture", ""), has_python), "")


@functools.cache
def _known() -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """(name, words it is recognised by, transport) of every shipped profile."""
    tables = {name: merged(chain(read_layers(LIBRARY / f"{name}.toml")[0])) for name in built_in_names()}
    return tuple((name, tuple(table.get("recognised_by", ())), table.get("transport", "local")) for name, table in tables.items())


def _pattern(word: str) -> str:
    """The word by itself; a star at its end stands for more letters and digits."""
    end = r"\w*" if word.endswith("*") else ""
    return rf"(?<!\w){re.escape(word.rstrip('*'))}{end}(?!\w)"
