"""What is done when a link breaks: connect again and go on, for a limited time and a limited number of times."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

from edgekit.core.device_link import Link
from edgekit.core.errors import DeviceError

__all__ = ["Patience"]

T = TypeVar("T")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_FIRST_TRIES = 3
"""Before a device has answered once: it is probably not there, and somebody waits for that message."""
_MOST_TRIES = 20
"""In a row, without anything having been brought forward between them."""


class Patience:
    """Repeats actions over a link until one goes through.

    Args:
        link: The link; connected here.
        name: The device's name, for messages.
        limit_s: How long a device that answered before may be away; a small computer takes up to a minute to boot.
    """

    def __init__(self, link: Link, *, name: str, limit_s: float) -> None:
        self.link = link
        self.name = name
        self.limit_s = limit_s
        self.reconnections = 0
        self._is_connected = False
        self._has_answered = False
        self._tries = 0
        self._since = 0.0

    def note_progress(self) -> None:
        """Something was brought forward: the count begins anew."""
        self._tries = 0

    def keep_trying(self, action: Callable[[], T], *, what: str) -> T:
        """Do something that may be repeated; after each failure the link is connected anew.

        Args:
            action: Called until it raises no :class:`DeviceError`, or one that is final.
            what: The work in words, for the message.

        Raises:
            DeviceError: The device refuses, or was away for too long.
        """
        self._tries = 0
        while True:
            try:
                return self._try(action)
            except DeviceError as reason:
                self._is_connected = False
                with contextlib.suppress(DeviceError):
                    self.link.close()
                if reason.is_final:
                    raise
                self._wait(reason, what)

    def once(self, action: Callable[[], T]) -> T | None:
        """Do something that is only tidy, without a second try."""
        try:
            return self._try(action)
        except DeviceError:
            self._is_connected = False
            return None

    def _try(self, action: Callable[[], T]) -> T:
        if not self._is_connected:
            self.link.connect()
            self.reconnections += self._has_answered
            self._is_connected = True
        found = action()
        self._has_answered = True
        return found

    def _wait(self, reason: DeviceError, what: str) -> None:
        now = time.monotonic()
        if self._tries == 0:
            self._since = now
        self._tries += 1
        if not self._has_answered:
            if self._tries >= _FIRST_TRIES:
                raise reason
        elif self._tries >= _MOST_TRIES or now - self._since > self.limit_s:
            raise DeviceError(
                f"Device '{self.name}' was lost while {what}; {self._tries} tries in {now - self._since:.0f} s did not bring it"
                f" back. The last: {reason} Nothing of a job is left running there once its lease has run out; run this again"
                " and what was sent already is not sent again.",
                is_final=True,
            ) from reason
        time.sleep(min(_FIRST_PAUSE_S * 2 ** (self._tries - 1), _LONGEST_PAUSE_S))
