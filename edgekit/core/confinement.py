"""What a worker gives up before it opens a file from somebody else.

========== ============================================= =======================================
what       how                                           where
========== ============================================= =======================================
files      Landlock: reads what Python and the framework Linux 5.13 and later
           need and the model, writes its own folders
network    seccomp: no sockets; Landlock: no signals     Linux on x86-64 and aarch64
           outside
memory     ``RLIMIT_DATA`` in the child, and the         Linux, macOS (the caller's eye: everywhere)
           caller's eye on what is resident
time       ``RLIMIT_CPU``, and the caller's clock        Linux, macOS (the caller's clock: everywhere)
disk       ``RLIMIT_FSIZE``; no core dumps               Linux, macOS
========== ============================================= =======================================

Where the kernel lacks one, the rest holds and the log says so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from edgekit.core import landlock, syscall_filter
from edgekit.core.model import Record

__all__ = ["Confinement", "confine", "prepare"]

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/nix/store", "/proc", "/sys", "/dev")
"""Where programs, libraries and facts about the machine lie; nobody's own files."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")


class Confinement(Record):
    """What a confined worker may still do.

    Args:
        reads: Files and folders it may read, besides Python and the installed packages.
        writes: Folders it may write to (its temporary folder is always one).
        memory_bytes: Most memory it may hold; None: three quarters of the machine's.
        cpu_s: Most CPU time, all threads together, in seconds; None: no limit but the caller's clock. With a limit the process's
            CPU clock moves with the scheduler's ticks only (4 ms on Linux): none for a process that times what it does.
        file_bytes: Largest file it may write.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpu_s: int | None = 3600
    file_bytes: int = 16 * 2**30

    @property
    def memory_limit_bytes(self) -> int:
        """:attr:`memory_bytes`, or what stands for it."""
        return self.memory_bytes or _machine_bytes() * 3 // 4


def _machine_bytes() -> int:
    """The machine's memory; psutil is imported only where the system does not tell."""
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.virtual_memory().total)


def confine(confinement: Confinement, *, scratch: Path) -> list[str]:
    """Give up, in this process and for good, what ``confinement`` does not leave; call it before any thread is started.

    Args:
        confinement: What is left.
        scratch: The process's temporary folder.

    Returns:
        What this system cannot enforce, a sentence each.
    """
    lacking = _limit(confinement)
    if landlock.abi():
        reads = [*map(Path, _SYSTEM), *map(Path, _python_folders()), *map(Path, confinement.reads)]
        writes = [*map(Path, _DEVICES), scratch, *map(Path, confinement.writes)]
        landlock.restrict(reads=reads, writes=writes)
    else:
        lacking.append("This system has no Landlock: the worker can read and write wherever you can.")
    if syscall_filter.is_known_machine():
        syscall_filter.forbid_sockets()
    else:
        lacking.append("Sockets cannot be forbidden on this system: the worker can reach the network.")
    return lacking


def _limit(confinement: Confinement) -> list[str]:
    try:
        import resource
    except ImportError:
        return ["This system has no resource limits: only the calling process watches memory and time."]
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: confinement.file_bytes,
        resource.RLIMIT_DATA: confinement.memory_limit_bytes,
    }
    if confinement.cpu_s is not None:
        limits[resource.RLIMIT_CPU] = confinement.cpu_s
    for what, wanted in limits.items():
        _, hard = resource.getrlimit(what)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (value, value))
    return []


def prepare() -> None:
    """Import and find out what :func:`confine` needs, so that a process that is forked from this one need not."""
    with contextlib.suppress(ImportError):
        import resource  # noqa: F401
    landlock.abi()
    _python_folders()


@functools.cache
def _python_folders() -> tuple[str, ...]:
    """What Python reads; found out once, since ``sys.path`` is the same for all that a process opens."""
    return tuple(dict.fromkeys(_find_python_folders()))


def _find_python_folders() -> Iterator[str]:
    """Where this interpreter, its libraries, edgekit and the packages it can import lie.

    The folder the process was started in is on ``sys.path`` too, but is somebody's own.
    """
    own = Path(__file__).parents[1]
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    yield from (path for path in sys.path if path and Path(path) != Path.cwd())
    yield from (str(path.resolve()) for path in (own, own / "converters", own / "runtimes", own / "device_tests"))
    yield from (path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path)
