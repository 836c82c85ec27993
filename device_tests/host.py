"""What this machine says of itself, without a framework."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

__all__ = ["host_facts", "process_age_s"]

_STAT = Path("/proc/self/stat")
_START_FIELD = 19
"""Field 22 of proc_pid_stat(5), counted from behind the command's name: start of the process in clock ticks after boot."""
_CPUINFO = Path("/proc/cpuinfo")
_DEVICE_TREE = Path("/proc/device-tree/model")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def host_facts() -> dict[str, str]:
    """Processor, architecture, cores, memory, system, clock governor, load.

    >>> sorted(host_facts())
    ['architecture', 'cores', 'governor', 'load average', 'memory', 'processor', 'python', 'system', 'system version']
    """
    import psutil

    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    physical = psutil.cpu_count(logical=False)
    logical = psutil.cpu_count()
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": f"{logical} logical" + (f", {physical} physical" if physical else ""),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": platform.system(),
        "system version": platform.release(),
        "governor": _text(_GOVERNOR) or "not shown by the system",
        "load average": f"{load} (1, 5, 15 minutes)",
        "python": platform.python_version(),
    }


def process_age_s() -> float | None:
    """How long this process has been there, in seconds, to a hundredth; None where the system does not tell."""
    try:
        ticks = int(_text(_STAT).rpartition(")")[2].split()[_START_FIELD])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, IndexError, ValueError, OSError):
        return None


def _processor() -> str:
    """The processor's marketing name, where the system knows it."""
    for line in _text(_CPUINFO).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Hardware"}:
            return value.strip()
    if board := _text(_DEVICE_TREE).strip("\0"):
        return board
    if platform.system() == "Darwin":
        found = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            return found.stdout.strip()
    return platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
