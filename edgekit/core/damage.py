"""One answer to whatever a damaged file does to the code that reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgekit.core.errors import EdgekitError, IntegrityError

__all__ = ["explaining_damage"]

_MOST_LETTERS = 400


@contextlib.contextmanager
def explaining_damage(source: object) -> Iterator[None]:
    """Turn what readers of a file raise into an :class:`~edgekit.core.errors.IntegrityError`; edgekit's own errors stay.

    Parsers follow what a file says: a damaged one can raise anything, anywhere in them, and all of it means the same.

    Args:
        source: The file's name, for the message.

    Raises:
        IntegrityError: Something else was raised than an edgekit error; names its type.

    >>> with explaining_damage("x.onnx"):
    ...     {}["tensor"]
    Traceback (most recent call last):
    edgekit.core.errors.IntegrityError: x.onnx is damaged: KeyError: 'tensor'. Export again.
    """
    try:
        yield
    except (EdgekitError, ImportError):  # the latter is about the installation
        raise
    except Exception as reason:
        words = " ".join(str(reason).split())[:_MOST_LETTERS].rstrip(".")
        what = type(reason).__name__ + (f": {words}" if words else "")
        raise IntegrityError(f"{source} is damaged: {what}. Export again.") from reason
