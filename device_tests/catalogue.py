"""All profiles there are, those that cannot be read among them, and which of them words tell."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edgekit.core.errors import ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.attachment import obstacle_of
from edgekit.device_tests.profiles import load_profiles, own_profile_names, profile_names

__all__ = ["Listed", "listed", "matching"]

_ORDER = ("", "emulated", "computer", "gateway", "board", "phone", "tablet", "microcontroller")


@dataclasses.dataclass(frozen=True)
class Listed:
    """One profile.

    Args:
        name: What it is asked for by.
        origin: ``"own"``, ``"built-in"``, or its file.
        profile: None where it cannot be read.
        obstacle: Why the device could not be tried from here, or why its profile cannot be read.
    """

    name: str
    origin: str
    profile: DeviceProfile | None
    obstacle: str

    @property
    def is_ready(self) -> bool:
        """Whether the device could be tried from here."""
        return self.profile is not None and not self.obstacle

    @property
    def evidence(self) -> str:
        """What its numbers rest on."""
        runtimes = self.profile.runtimes.values() if self.profile else ()
        return ", ".join(dict.fromkeys(choice.evidence.value for choice in runtimes))


def listed(files: Sequence[str | Path] = ()) -> tuple[Listed, ...]:
    """The profiles of files; without any, the user's own and the built-in ones.

    Raises:
        ProfileError: A file that was asked for cannot be read.
    """
    if files:
        found = [one for file in files for one in _of(str(file), str(file), is_asked_for=True)]
    else:
        own = own_profile_names()
        found = [one for name in own for one in _of(name, "own")]
        found += [one for name in profile_names() if name not in own for one in _of(name, "built-in")]
    return tuple(sorted(found, key=_place))


def matching(profiles: Iterable[Listed], words: Sequence[str]) -> tuple[Listed, ...]:
    """Those that hold every word: in name, title, processor, class, transport, targets, instructions and so on.

    >>> [one.name for one in matching(listed(), ["raspberry", "dotprod"])]
    ['raspberry-pi-5']
    """
    return tuple(one for one in profiles if all(word.lower() in _text(one) for word in words))


def _of(name: str, origin: str, *, is_asked_for: bool = False) -> Iterator[Listed]:
    try:
        profiles = [profile.on_system(platform.system()) for profile in load_profiles(name)]
    except ProfileError as reason:
        if is_asked_for:
            raise
        yield Listed(name, origin, None, str(reason))
        return
    for profile in profiles:
        yield Listed(profile.name, origin, profile, obstacle_of(profile))


def _place(one: Listed) -> tuple[bool, int, str]:
    """One's own first, then class by class."""
    kind = one.profile.device_class if one.profile else ""
    return one.origin == "built-in", _ORDER.index(kind), one.name


def _text(one: Listed) -> str:
    if one.profile is None:
        return f"{one.name} {one.origin}".lower()
    profile, hardware = one.profile, one.profile.hardware
    parts = [
        one.name, one.origin, profile.title, profile.device_class, profile.transport, profile.operating_system or "",
        hardware.processor or "", hardware.architecture or "", one.evidence,
        *hardware.clusters, *hardware.instructions, *hardware.accelerators, *profile.runtimes,
    ]  # fmt: skip
    return " ".join(parts).lower()
