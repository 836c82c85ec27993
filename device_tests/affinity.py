"""Which processors a process may run on."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.core.errors import ProfileError
from edgekit.core.profile import processors

__all__ = ["allowed_processors", "keep_to"]

_TASKS = Path("/proc/self/task")


def allowed_processors() -> frozenset[int]:
    """Those this process may run on; empty where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def keep_to(affinity: str) -> None:
    """Keep this process to some processors: the threads it has, and all that they start.

    Args:
        affinity: As in a profile; empty: any.

    Raises:
        ProfileError: The device has no such processor, or its system cannot keep a process to one.
    """
    if not affinity:
        return
    try:
        wanted = frozenset(processors(affinity))
    except ValueError as reason:
        raise ProfileError(f"affinity is {affinity!r}: {reason}; write processors such as '0,2-3'.") from reason
    if not hasattr(os, "sched_setaffinity"):
        raise ProfileError(f"affinity is {affinity!r}, but this system cannot keep a process to processors. Leave it out.")
    there = range(os.cpu_count() or 1)
    missing = sorted(wanted - set(there))
    if missing:
        raise ProfileError(f"affinity is {affinity!r}, but the device has processors 0 to {there[-1]}: no {missing[0]}.")
    tasks = [int(task.name) for task in _TASKS.iterdir()] if _TASKS.is_dir() else [0]
    for task in tasks:
        try:
            os.sched_setaffinity(task, wanted)
        except ProcessLookupError:  # a thread that has just ended
            continue
        except (OSError, ValueError) as reason:
            words = f"affinity is {affinity!r}: the device refuses it ({reason}). It allows {sorted(allowed_processors())}."
            raise ProfileError(words) from reason
