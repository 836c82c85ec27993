"""The one place where what happened becomes an exit code and a message.

==== =====================================================================
code meaning
==== =====================================================================
0    done
1    a gate was missed: the verdict is BLOCK or INCONCLUSIVE
2    usage: what was asked for cannot be read or done as asked
3    the model is not convertible, or holds something not supported
4    the device was lost or cannot be reached
5    a file is damaged, foreign, or not what its recorded hash says
70   a bug in edgekit (``EX_SOFTWARE`` of sysexits.h); its traceback is kept
130  interrupted from the keyboard (128 + SIGINT)
141  the reader of stdout went away (128 + SIGPIPE), as in ``edgekit report RUN | head``
143  asked to end (128 + SIGTERM)
==== =====================================================================
"""

from __future__ import annotations

import enum
import errno
import os
from pathlib import Path
from typing import Any

import click

__all__ = ["TERMINAL_KEY", "ExitCode", "Terminated", "exit_code_of", "explain_failure"]

TERMINAL_KEY = "edgekit.terminal"
"""Where a running command keeps its terminal in click's ``ctx.meta``."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What writing fails with where there is no room; the stages map it themselves, logs and pipes do not."""


class ExitCode(enum.IntEnum):
    """What the program's end says to the program that called it."""

    OK = 0
    GATE_MISSED = 1
    USAGE = 2
    CONVERSION = 3
    DEVICE = 4
    INTEGRITY = 5
    BUG = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM arrived: end like on Ctrl-C, so that no worker and no half-written folder stays behind."""


def exit_code_of(reason: BaseException) -> int:
    """The exit code an exception ends the program with.

    >>> from edgekit.core.errors import DeviceError
    >>> exit_code_of(DeviceError("lost"))
    4
    """
    from edgekit.core.errors import EdgekitError

    match reason:
        case EdgekitError() | click.ClickException():
            return int(reason.exit_code)
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case BrokenPipeError():
            return ExitCode.PIPE_CLOSED
        case SystemExit() if isinstance(reason.__context__, BrokenPipeError):  # how rich ends on a closed pipe
            return ExitCode.PIPE_CLOSED
        case Terminated():
            return ExitCode.TERMINATED
        case OSError() if reason.errno in _FULL:
            return ExitCode.USAGE
    return ExitCode.BUG


def _failure_document(reason: BaseException, message: str, command: str) -> dict[str, Any]:
    """What ``--json`` prints when a command failed."""
    error = {"type": type(reason).__name__, "message": message, "exit_code": int(exit_code_of(reason))}
    return {"schema_version": 1, "command": command, "ok": False, "error": error}


def explain_failure(reason: BaseException, ctx: click.Context, *, as_json: bool) -> int:
    """Print one message on stderr (with ``as_json`` also a document on stdout) and return the exit code."""
    import json

    code = exit_code_of(reason)
    if code == ExitCode.PIPE_CLOSED:  # nobody reads: say nothing, and let the last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return code
    terminal = ctx.meta.get(TERMINAL_KEY)
    message = _message(reason, code, terminal.log if terminal else None)
    if isinstance(reason, click.UsageError) and reason.ctx is not None:
        click.echo(reason.ctx.get_usage(), err=True)
    prefix = "Interrupted." if code in {ExitCode.INTERRUPTED, ExitCode.TERMINATED} else "Error:"
    click.echo(f"{click.style(prefix, fg='red', bold=True)} {message}", err=True, color=ctx.color)
    if terminal.as_json if terminal else as_json:
        click.echo(json.dumps(_failure_document(reason, message, ctx.invoked_subcommand or ""), indent=2))
    return code


def _message(reason: BaseException, code: int, log: Path | None) -> str:
    if isinstance(reason, click.ClickException):
        return reason.format_message()
    if code in {ExitCode.INTERRUPTED, ExitCode.TERMINATED}:
        return "Workers were stopped, and nothing is left half written."
    if code == ExitCode.BUG:
        kept = _keep_traceback(reason, log)
        return f"edgekit failed unexpectedly, which is a bug: {type(reason).__name__}: {reason}. The traceback is in {kept}."
    if isinstance(reason, OSError):
        return (
            f"Cannot write {reason.filename or 'a file'}: {os.strerror(errno.ENOSPC)}. Free some space or choose another folder."
        )
    return str(reason)


def _keep_traceback(reason: BaseException, log: Path | None) -> Path:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(reason))
    if log is None or not log.parent.is_dir():
        handle, name = tempfile.mkstemp(prefix="edgekit-failure-", suffix=".txt")
        os.close(handle)
        log = Path(name)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"\n--- unexpected failure ---\n{text}")
    return log
