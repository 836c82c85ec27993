"""A seccomp filter: system calls a Linux process gives up for good, because no reader of model files needs them.

Sockets (the network, and daemons that listen on files), ``io_uring`` (which could open sockets around the filter), other
processes' memory, and leaving the process group by which the caller ends the worker.
See https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

__all__ = ["forbid_sockets", "is_known_machine"]

_REFUSED = {
    # machine: (AUDIT_ARCH of linux/audit.h, {socket, ptrace, process_vm_writev, setpgid, setsid, io_uring_setup})
    "x86_64": (0xC000003E, (41, 101, 311, 109, 112, 425)),
    "aarch64": (0xC00000B7, (198, 117, 271, 154, 157, 425)),
}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AT_FULL_SPEED = 4
"""``SECCOMP_FILTER_FLAG_SPEC_ALLOW``: kernels before 5.16 slow a filtered process down, which a latency would show."""

_X32 = 0x40000000
"""Set in the number of a call through x86-64's 32-bit-pointer ABI, whose numbers would pass the filter."""

_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in ``struct seccomp_data``."""
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_DENY = 0x00050000 | errno.EPERM


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def is_known_machine() -> bool:
    """Whether the numbers of this machine's system calls are known."""
    return sys.platform == "linux" and platform.machine() in _REFUSED


def forbid_sockets() -> None:
    """Let the calls above fail with ``EPERM`` in this process and all it starts.

    Raises:
        OSError: The kernel refused.
    """
    architecture, numbers = _REFUSED[platform.machine()]
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    tests = [(_EQUAL, number) for number in numbers]
    if platform.machine() == "x86_64":
        tests.append((_AT_LEAST, _X32))
    lines += [(code, len(tests) - at, 0, value) for at, (code, value) in enumerate(tests)]  # to the last line
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        install = ctypes.c_long(_SECCOMP[platform.machine()]), ctypes.c_uint(1), ctypes.c_uint(_AT_FULL_SPEED)
        if (
            libc.syscall(*install, ctypes.byref(program)) == 0
            or libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0
        ):
            return
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
