"""A TCP proxy on loopback that breaks what passes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class CutProxy:
    """A TCP proxy on loopback that cuts, delays or drips what passes through it.

    Args:
        port: Where it leads.

    A connection is cut after ``cut_after`` bytes in both directions together; the plan's next number is for the connection after
    that one, and once it is empty connections live on. ``is_down`` refuses new ones.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.plan: list[int] = []
        self.is_down = False
        self.bytes_per_s: float | None = None
        self.passed = 0
        self.cuts = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.2)
        self.port: int = self._server.getsockname()[1]
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        self.cut()
        self._threads[0].join()
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Cut every connection now."""
        with self._lock:
            for one in self._open:
                _reset(one)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                here, _ = self._server.accept()
            except TimeoutError:
                continue
            if self.is_down:
                _reset(here)
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                self._open |= {here, there}
            budget = [self.plan.pop(0) if self.plan else -1]
            ways = ((here, there), (there, here))
            pair = [threading.Thread(target=self._carry, args=(*way, budget), daemon=True) for way in ways]
            self._threads += [*pair, threading.Thread(target=self._forget, args=(pair, here, there), daemon=True)]
            for thread in self._threads[-3:]:
                thread.start()

    def _forget(self, pair: list[threading.Thread], here: socket.socket, there: socket.socket) -> None:
        for thread in pair:
            thread.join()
        with self._lock:
            self._open -= {here, there}
        here.close()
        there.close()

    def _carry(self, source: socket.socket, target: socket.socket, budget: list[int]) -> None:
        try:
            while data := source.recv(2**14 if self.bytes_per_s is None else 2**10):
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                with self._lock:
                    self.passed += len(data)
                    if budget[0] >= 0:
                        data, budget[0] = data[: budget[0]], max(budget[0] - len(data), 0)
                if data:
                    target.sendall(data)
                if budget[0] == 0:
                    self.cuts += 1
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        for one in (source, target):
            _reset(one)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
