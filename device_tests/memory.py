"""Resident memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["peak_bytes"]

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most memory this process has had resident so far, in bytes.

    Linux: ``VmHWM`` of ``/proc/self/status``, because ``ru_maxrss`` of a child process starts at its parent's size
    (``exec`` carries it over, see getrusage(2) and ``exec_mmap`` in the kernel). Elsewhere: ``ru_maxrss``.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
