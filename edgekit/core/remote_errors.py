"""Errors that cross from a child process to its caller as JSON: edgekit's own stay what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.core import errors
from edgekit.core.errors import EdgekitError, MissingExtraError, WorkerError
from edgekit.core.supervision import plain

__all__ = ["describe_error", "raise_error"]


def describe_error(reason: BaseException) -> dict[str, Any]:
    """An exception as the JSON object :func:`raise_error` reads."""
    found = {"error": type(reason).__name__, "message": str(reason)}
    if isinstance(reason, MissingExtraError):
        found |= {"extra": reason.extra, "module": reason.module}
    return found


def raise_error(answer: Mapping[str, Any], what: str) -> None:
    """Raise the error an answer reports; do nothing where it reports none.

    Args:
        answer: What a child wrote; nothing in it is trusted.
        what: The work in words, for errors that are not edgekit's.

    Raises:
        EdgekitError: Whatever edgekit error the child raised.
        WorkerError: It raised something else.
    """
    if "error" not in answer:
        return
    kind, message = str(answer["error"]), plain(str(answer.get("message")))
    if kind == "MissingExtraError":
        raise MissingExtraError(plain(str(answer.get("extra"))), module=plain(str(answer.get("module"))))
    error_type = getattr(errors, kind, None) if kind in errors.__all__ else None
    if isinstance(error_type, type) and issubclass(error_type, EdgekitError):
        raise error_type(message)
    raise WorkerError(f"The worker {what} failed: {plain(kind, most=80)}: {message}")
