"""One user at a time: a lock on the device that its holder renews, and that is taken over once nobody does.

No clock is compared with another: whoever waits looks whether the holder's sign of life changes, by its own clock. Who finds it
unchanged for a lease's time makes the next generation's folder, which only one of many can.
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable

from edgekit.core.errors import DeviceError
from edgekit.core.supervision import plain
from edgekit.device_tests.remote.patience import Patience
from edgekit.device_tests.remote.shell import DeviceShell

__all__ = ["DeviceLock"]

_LOOK_S = 1.0
_END_JOBS_S = 120.0
"""Taking over ends what the last holder left running."""


class DeviceLock:
    """The lock of one device.

    Args:
        shell: The device.
        patience: Reconnects.
        lease_s: A holder that gives no sign for so long has lost it.
        wait_s: How long to wait for another.
        waiting: Called with a message while another holds it.
    """

    def __init__(
        self, shell: DeviceShell, patience: Patience, *, lease_s: float, wait_s: float, waiting: Callable[[str], object]
    ) -> None:
        self.shell = shell
        self.patience = patience
        self.lease_s = lease_s
        self.wait_s = wait_s
        self.waiting = waiting
        self.token = secrets.token_hex(8)
        self.is_held = False
        self._who = _this_user()

    def acquire(self) -> None:
        """Hold the lock from now on; at once where it is held already.

        Raises:
            DeviceError: Another holds it for longer than one waits here, or the device was lost.
        """
        started = changed = time.monotonic()
        sign, stale, told = "", "0", ""
        while True:
            found = self._ask(stale)
            if "held" in found:
                self.is_held = True
                return
            now = time.monotonic()
            if found.get("sign", "") + found.get("busy", "") != sign:
                sign, changed = found.get("sign", "") + found.get("busy", ""), now
            who = plain(found.get("who", ""), most=200) or "somebody"
            stale = found.get("busy", "0") if now - changed > self.lease_s else "0"
            if now - started > self.wait_s:
                raise DeviceError(
                    f"Device '{self.patience.name}' is in use by {who}, and was for all of the {self.wait_s:.0f} s this waited."
                    " Try again when that has ended, or ask them.",
                    is_final=True,
                )
            if who != told:
                told = who
                self.waiting(f"waiting for device '{self.patience.name}': in use by {who}")
            time.sleep(min(_LOOK_S, self.lease_s / 4))

    def release(self) -> None:
        """Let others in, if the device still answers."""
        if self.is_held:
            self.is_held = False
            self.patience.once(lambda: self.shell.ask("release", self.token))

    def _ask(self, stale: str) -> dict[str, str]:
        lines = self.patience.keep_trying(
            lambda: self.shell.ask("lock", self.token, secrets.token_hex(4), stale, self._who, timeout_s=_END_JOBS_S),
            what="asking for its lock",
        )
        return {word: rest for word, _, rest in (line.partition(" ") for line in lines)}


def _this_user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no name for the number
        name = f"user {os.getuid()}"
    since = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{name} on {socket.gethostname()} (process {os.getpid()}, since {since})"
