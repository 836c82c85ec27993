"""Devices reached over SSH: boards, gateways, computers. All goes through ``sh`` there; no SFTP server is needed.

The connection is asyncssh's, whose event loop runs in a thread of its own. Host keys are always checked (RFC 4251, 4.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
import shlex
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgekit.core.device_link import DeviceAgent, Finished
from edgekit.core.errors import DeviceError, MissingExtraError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.core.supervision import plain
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.remote.python_agent import PythonAgent
from edgekit.device_tests.transports.ssh_connection import SshPlace, explain_ssh, read_place

if TYPE_CHECKING:
    import asyncssh

__all__ = ["SshLink", "SshTransport"]

T = TypeVar("T")

_CONNECT_S = 20.0
_KEEPALIVE_S = 15.0
_KEEPALIVES = 4
"""A link on which nothing comes for a minute is dead."""
_SILENCE_S = 60.0
"""How long a transfer may stand still."""
_LAST_BYTES_S = 900.0
"""What is on its way when the last byte was given out may be a channel's whole window, 2 MiB."""
_CLOSE_S = 2.0
_CHUNK_BYTES = 2**16
_BLOCK_BYTES = 2**16


class SshLink:
    """One SSH connection to one device; see :class:`edgekit.core.device_link.Link`. May be used from several threads.

    Args:
        profile: Its ``connection`` says host, port, user, key, known_hosts and folder.

    Raises:
        ProfileError: The connection's settings are wrong.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.place = read_place(profile)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    def connect(self) -> None:
        """Reach the device.

        Raises:
            DeviceError: It cannot be reached, refuses the user, is not the device it should be, or has no folder to write in.
            MissingExtraError: asyncssh is not installed.
        """
        if importlib.util.find_spec("asyncssh") is None:
            raise MissingExtraError("devices", module="asyncssh")
        self.close()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"ssh {self.place.host}", daemon=True)
        self._thread.start()
        try:
            self._connection = self._call(_connect(self.place), timeout_s=_CONNECT_S + _CLOSE_S)
            self._check_folder()
        except BaseException:
            self.close()
            raise

    def _check_folder(self) -> None:
        nonce = secrets.token_hex(8)
        finished = self.run(f"[ -w . ] && echo {nonce}", timeout_s=_CONNECT_S)
        if nonce not in finished.output.split():
            words = plain(finished.errors.strip().replace("\n", " | "), most=200) or "it is not writable"
            raise DeviceError(
                f"The folder '{self.place.folder}' on {self.place} cannot be used: {words}. Name one that can be written as"
                " connection.folder in the profile.",
                is_final=True,
            )

    def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        """Run a command line in edgekit's folder.

        Raises:
            DeviceError: The connection was lost, or the command took longer.
        """
        connection = self._alive()
        return self._call(_run(connection, self._there(command), given), timeout_s=timeout_s)

    def push(self, source: Path, target: str, *, offset: int = 0) -> None:
        """Send a file's bytes from ``offset`` on.

        They are written at their own place: what still trickles in from a connection that was cut writes the same again.

        Raises:
            DeviceError: The connection was lost, or the device cannot write.
        """
        place = shlex.quote(target)
        before = offset % _BLOCK_BYTES
        filling = (_BLOCK_BYTES - before) % _BLOCK_BYTES
        words = [f"mkdir -p {shlex.quote(str(Path(target).parent))}", f"{{ [ {offset} != 0 ] || : >{place}; }}"]
        if filling:  # to the next whole block
            words.append(f"dd of={place} conv=notrunc bs=1 seek={offset} count={filling} 2>/dev/null")
        first = (offset + filling) // _BLOCK_BYTES
        words.append(f"dd of={place} conv=notrunc bs={_BLOCK_BYTES} seek={first}")
        nonce = secrets.token_hex(8)
        command = self._there(f"{' && '.join(words)} && echo {nonce}")
        self._call(_push(self._alive(), command, source, offset=offset, nonce=nonce, target=target), timeout_s=None)

    def pull(self, source: str, target: Path, *, offset: int = 0) -> None:
        """Fetch a file's bytes from ``offset`` on; what ``target`` held behind that is dropped.

        Raises:
            DeviceError: The connection was lost, or the device has no such file.
        """
        nonce = secrets.token_hex(8)
        command = self._there(f"echo {nonce}; tail -c +{offset + 1} {shlex.quote(source)} && echo {nonce} >&2")
        self._call(_pull(self._alive(), command, target, offset=offset, nonce=nonce, source=source), timeout_s=None)

    def close(self) -> None:
        """End the connection."""
        loop, self._loop = self._loop, None
        connection, self._connection = self._connection, None
        if loop is None:
            return
        if connection is not None:
            with contextlib.suppress(Exception):  # whatever goes wrong here, the connection is gone
                asyncio.run_coroutine_threadsafe(_close(connection), loop).result(2 * _CLOSE_S)
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(2 * _CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join(2 * _CLOSE_S)
        if not loop.is_running():
            loop.close()

    def _there(self, command: str) -> str:
        """A command in edgekit's folder, by ``sh`` whatever the login's shell is."""
        folder = shlex.quote(self.place.folder)
        return f"exec sh -c {shlex.quote(f'mkdir -p {folder} && cd {folder} && {command}')}"

    def _alive(self) -> asyncssh.SSHClientConnection:
        if self._connection is None:
            raise DeviceError(f"The connection to {self.place} is not there.")
        return self._connection

    def _call(self, work: Coroutine[Any, Any, T], *, timeout_s: float | None) -> T:
        """Do something in the loop's thread, and say in edgekit's words what went wrong."""
        loop, waited = self._loop, asyncio.wait_for(work, timeout_s)
        try:
            if loop is None:
                raise RuntimeError
            future = asyncio.run_coroutine_threadsafe(waited, loop)
        except RuntimeError as reason:  # another thread has closed the loop
            waited.close()
            work.close()
            raise DeviceError(f"The connection to {self.place} is not there.") from reason
        import asyncssh

        try:
            return future.result(None if timeout_s is None else timeout_s + _CLOSE_S)
        except (asyncssh.Error, asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError, CancelledError) as reason:
            raise explain_ssh(reason, self.place) from reason
        finally:
            future.cancel()


async def _connect(place: SshPlace) -> asyncssh.SSHClientConnection:
    import asyncssh

    known: Any = [str(file) for file in place.known_hosts if file.is_file()] or b""
    options: dict[str, Any] = {"known_hosts": known, "keepalive_interval": _KEEPALIVE_S, "keepalive_count_max": _KEEPALIVES}
    if place.port is not None:
        options["port"] = place.port
    if place.user is not None:
        options["username"] = place.user
    if place.key is not None:
        options["client_keys"] = [str(place.key)]
    return await asyncssh.connect(
        place.host, connect_timeout=_CONNECT_S, login_timeout=_CONNECT_S, preferred_auth="publickey", **options
    )


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), _CLOSE_S)
    except TimeoutError:
        connection.abort()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _run(connection: asyncssh.SSHClientConnection, command: str, given: bytes) -> Finished:
    process = await connection.create_process(command, encoding=None)
    try:
        with contextlib.suppress(BrokenPipeError):  # a command may end without reading all it is given
            process.stdin.write(given)
            process.stdin.write_eof()
        result = await process.wait()
    finally:
        process.close()
    if result.returncode is None:
        raise ConnectionResetError("in the middle of a command")
    return Finished(result.returncode, _text(result.stdout), _text(result.stderr))


async def _push(
    connection: asyncssh.SSHClientConnection, command: str, source: Path, *, offset: int, nonce: str, target: str
) -> None:
    process = await connection.create_process(command, encoding=None)
    try:
        with source.open("rb") as stream, contextlib.suppress(BrokenPipeError):  # its words say why it stopped reading
            stream.seek(offset)
            while (chunk := stream.read(_CHUNK_BYTES)) and not process.stdin.is_closing():
                process.stdin.write(chunk)
                await asyncio.wait_for(process.stdin.drain(), _SILENCE_S)
            process.stdin.write_eof()
        result = await asyncio.wait_for(process.wait(), _LAST_BYTES_S)
    finally:
        process.close()
    _check_end(result.returncode, _text(result.stdout), nonce, f"write {target}", _text(result.stderr))


async def _pull(
    connection: asyncssh.SSHClientConnection, command: str, target: Path, *, offset: int, nonce: str, source: str
) -> None:
    process = await connection.create_process(command, encoding=None)
    try:
        begin = f"{nonce}\n".encode()
        with contextlib.suppress(asyncio.IncompleteReadError):  # what a login's own scripts print comes before
            await asyncio.wait_for(process.stdout.readuntil(begin), _SILENCE_S)
        with target.open("r+b" if target.exists() else "w+b") as stream:
            stream.truncate(offset)
            stream.seek(offset)
            while chunk := await asyncio.wait_for(process.stdout.read(_CHUNK_BYTES), _SILENCE_S):
                stream.write(chunk)
        result = await asyncio.wait_for(process.wait(), _SILENCE_S)
    finally:
        process.close()
    _check_end(result.returncode, _text(result.stderr), nonce, f"read {source}", _text(result.stderr))


def _check_end(code: int | None, marked: str, nonce: str, what: str, words: str) -> None:
    """A transfer that does not end with its mark was cut, or the device could not do it."""
    if nonce in marked.split():
        return
    if code is None:
        raise ConnectionResetError("in the middle of a file")
    said = plain(" | ".join(words.split("\n")).strip(" |"), most=300)
    is_full = "no space left" in said.lower()
    raise DeviceError(f"The device cannot {what}: {said or f'its shell ended with {code}'}.", is_final=is_full)


def _text(data: object) -> str:
    return bytes(data).decode("utf-8", "replace") if isinstance(data, bytes | bytearray | memoryview) else str(data or "")


class SshTransport(RemoteTransport):
    """A device behind SSH, with edgekit's Python agent or the native runner.

    Args:
        profile: Its ``connection`` says host, port, user, key, known_hosts, folder, and ``agent`` with ``python`` or ``runner``
            and ``library``.

    Raises:
        ProfileError: The connection's settings are wrong.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile, link=SshLink(profile), agent=_agent(profile))

    @staticmethod
    def obstacle(profile: DeviceProfile) -> str:
        """Why the device cannot be tried from here, and what to do; empty where it can. Nothing is connected."""
        if importlib.util.find_spec("asyncssh") is None:
            return "asyncssh is not installed: pip install 'edgekit[devices]'"
        if "host" not in profile.connection:
            return "connection.host is not set: edgekit devices add NAME --ssh USER@HOST"
        try:
            key = read_place(profile).key
        except ProfileError as reason:
            return str(reason)
        return f"the key {key} does not exist" if key is not None and not key.is_file() else ""


def _agent(profile: DeviceProfile) -> DeviceAgent:
    if profile.connection.get("agent") == "native":
        from edgekit.device_tests.native_agent import NativeAgent

        return NativeAgent(profile)
    return PythonAgent(profile)
