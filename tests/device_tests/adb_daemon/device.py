"""The test's side of the daemon: a "device" that can be started, rebooted, and asked what runs on it; and an adb server.

The sandbox is laid out as a phone is where a shell can tell: ``/system/bin`` with MirBSD's shell and toybox, ``/data/local/tmp``
as the only place that can be written, clusters and thermal zones under ``/sys`` (made-up values), a boot id for each start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MODEL = "edgekit adb test daemon (no Android device)"
_REBOOTS = 75
_NEEDED = {"adb": "adb", "bwrap": "bubblewrap", "mksh": "mksh", "toybox": "toybox"}
_GETPROP = '#!/system/bin/sh\nif [ -z "$1" ]; then exec sed "s/\\([^=]*\\)=\\(.*\\)/[\\1]: [\\2]/" /system/build.prop; fi\n' + (
    'sed -n "s/^$1=//p" /system/build.prop\n'
)
_BESIDE_TOYBOX = ("tr", "dd", "expr", "diff", "awk")
"""Programs that Android's toybox has (or stands beside) and Debian's leaves out; Debian's own take their place."""
_CLUSTERS = {"policy0": ("0", 1_800_000), "policy1": ("1", 2_850_000)}
_ZONES = {"thermal_zone0": ("cpu-0-0", 41_500), "thermal_zone1": ("battery", 30_200)}


def missing() -> str:
    """Why the test device cannot be started here and what to do; empty where it can."""
    packages = [package for program, package in _NEEDED.items() if not shutil.which(program)]
    if packages:
        return f"the test device needs Debian's {' and '.join(packages)}: apt-get install {' '.join(packages)}"
    tried = subprocess.run([*_sandbox(), "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"bubblewrap cannot make a sandbox here: {tried.stderr.strip()}"


def free_port() -> int:
    """A port of loopback that the system picks."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


class AdbServer:
    """An adb server of the test's own, with a home of its own; never the user's.

    Args:
        folder: For its home.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.environment = {**os.environ, "HOME": str(folder), "ADB_LOCAL_TRANSPORT_MAX_PORT": "0", "TMPDIR": str(folder)}
        self.environment.pop("ANDROID_SERIAL", None)
        self.run("start-server")

    def run(self, *words: str) -> str:
        """What the client prints."""
        words = ("adb", "-P", str(self.port), *words)
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout + done.stderr

    def stop(self) -> None:
        """End the server."""
        self.run("kill-server")


class TestDevice:
    """A sandbox with the daemon in it.

    Args:
        folder: For its files.
        disk_bytes: Size of ``/data``, which a reboot then empties; None: the folder's own disk.
        properties: Added to what ``getprop`` says.
        is_old: As a phone before Android 7.
    """

    __test__ = False

    def __init__(
        self, folder: Path, *, disk_bytes: int | None = None, properties: dict[str, str] | None = None, is_old: bool = False
    ) -> None:
        self.folder = folder
        self.disk_bytes = disk_bytes
        self.properties = {"ro.product.name": "edgekit", "ro.product.model": MODEL, **(properties or {})}
        self.is_old = is_old
        self.port = free_port()
        self.serial = f"127.0.0.1:{self.port}"
        self.authorises = True
        self.boots = 0
        self._is_wanted = True
        self._turn = threading.Lock()
        self._starter = ThreadPoolExecutor(1)  # the sandbox dies with the thread that started it: this one stays
        _lay_out(folder, self.properties)
        self._start()

    @property
    def data(self) -> Path:
        """Where ``/data/local/tmp`` lies, where it has no size of its own."""
        return self.folder / "data/local/tmp"

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Send the daemon a command and return its answer: ``messages``, ``processes``."""
        with self._turn:
            process = self._process
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the daemon has no control channel")
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

    def count(self) -> None:
        """Count messages and bytes from now on; no fault."""
        self.ask(faults=[])

    def fail(self, kind: str, *, at: int = 0, at_bytes: int = 0, down_s: float = 0.0) -> None:
        """Count messages and bytes from now on and let one go wrong."""
        self.ask(faults=[{"kind": kind, "at": at, "at_bytes": at_bytes, "down_s": down_s}])

    def cut_several(self, places: list[int]) -> None:
        """Count messages from now on and cut every connection at each of these."""
        self.ask(faults=[{"kind": "cut", "at": at} for at in sorted(set(places))])

    def mend(self) -> None:
        """No fault any more; connections that said nothing are dropped."""
        self.ask(faults=[], drop_stalled=True)

    def orphans(self, *, within_s: float) -> list[str]:
        """What still runs when it should have ended ``within_s`` ago at the latest; returns as soon as nothing does."""
        limit = time.monotonic() + within_s
        while (found := self.ask()["processes"]) and time.monotonic() < limit:
            time.sleep(0.05)
        return list(found)

    def reboot(self) -> None:
        """Kill everything that runs there and start again, with another boot id."""
        with self._turn:
            self._kill()
            self._start()

    def stop(self) -> None:
        """Kill everything."""
        self._is_wanted = False
        with self._turn:
            self._kill()
        self._starter.shutdown()

    def _start(self) -> None:
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self.boots += 1
        settings = {"port": self.port, "properties": self.properties, "is_old": self.is_old, "authorises": self.authorises}
        python = str(Path(sys.executable).resolve())
        words = [*_sandbox(), *_device(self.folder, self.disk_bytes), python, "-s", "-m", "adb_daemon", json.dumps(settings)]
        self._process = self._starter.submit(self._launch, words).result()
        ready = self._process.stdout.readline() if self._process.stdout else ""
        if not ready:
            raise RuntimeError(f"the daemon did not start: {(self.folder / 'daemon.log').read_text()}")
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _launch(self, words: list[str]) -> subprocess.Popen[str]:
        with (self.folder / "daemon.log").open("a") as log:
            pipe = subprocess.PIPE
            return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True)

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """Start the daemon again when it ends to reboot."""
        if process.wait() == _REBOOTS and self._is_wanted:
            with self._turn:
                if process is self._process:
                    _close(process)
                    self._start()

    def _kill(self) -> None:
        self._process.kill()  # the sandbox's first process: the kernel kills everything inside with it
        self._process.wait()
        _close(self._process)


def _close(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _lay_out(folder: Path, properties: dict[str, str]) -> None:
    """The device's files."""
    programs = folder / "system/bin"
    programs.mkdir(parents=True)
    (folder / "system/lib/adb_daemon").mkdir(parents=True)
    toybox = shutil.which("toybox") or ""
    applets = subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        (programs / name).symlink_to("/usr/bin/toybox")
    for name in set(_BESIDE_TOYBOX) - set(applets):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    (programs / "sh").symlink_to("/usr/bin/mksh")
    (programs / "getprop").write_text(_GETPROP)
    (programs / "getprop").chmod(0o755)
    (folder / "system/build.prop").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    _write(folder / "etc", {"passwd": "shell:x:2000:2000::/:/system/bin/sh", "group": "shell:x:2000:"})
    (folder / "data/local/tmp").mkdir(parents=True)
    processors = folder / "sys/devices/system/cpu"
    for name, (related, most) in _CLUSTERS.items():
        values = {"related_cpus": related, "cpuinfo_max_freq": most, "scaling_cur_freq": most, "scaling_governor": "schedutil"}
        _write(processors / "cpufreq" / name, values)
        (processors / f"cpu{related}").mkdir()
        (processors / f"cpu{related}/cpufreq").symlink_to(f"../cpufreq/{name}")
    own = Path("/sys/devices/system/cpu")
    _write(processors, {name: (own / name).read_text().strip() for name in ("online", "possible", "present")})
    for name, (kind, temperature) in _ZONES.items():
        _write(folder / "sys/class/thermal" / name, {"type": kind, "temp": temperature})


def _write(folder: Path, values: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def _sandbox() -> list[str]:
    """A root of its own with the machine's libraries in it, read only, and a process space of its own."""
    words = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--uid", "2000", "--gid", "2000"]
    words += ["--cap-drop", "ALL", "--clearenv", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for name in ("/lib", "/lib64"):
        if Path(name).exists():
            words += ["--ro-bind", name, name]
    if Path("/etc/ld.so.cache").exists():
        words += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    return [*words, "--setenv", "PATH", "/system/bin:/usr/bin"]


def _device(folder: Path, disk_bytes: int | None) -> list[str]:
    """The device's own folders, and the daemon's Python."""
    data = ["--bind", str(folder / "data"), "/data"]
    if disk_bytes is not None:
        data = ["--size", str(disk_bytes), "--tmpfs", "/data", "--dir", "/data/local/tmp"]
    python = ["--ro-bind", sys.base_prefix, sys.base_prefix] if not sys.base_prefix.startswith("/usr") else []
    return [
        *python,
        "--ro-bind", str(folder / "system"), "/system", "--symlink", "/system/bin", "/bin",
        "--ro-bind", str(folder / "sys"), "/sys",
        "--ro-bind", str(folder / "boot_id"), "/proc/sys/kernel/random/boot_id",
        "--ro-bind", str(folder / "etc/passwd"), "/etc/passwd", "--ro-bind", str(folder / "etc/group"), "/etc/group",
        "--ro-bind", str(Path(__file__).parent), "/system/lib/adb_daemon",
        *data,
        "--setenv", "PATH", "/system/bin", "--setenv", "HOME", "/", "--setenv", "TMPDIR", "/data/local/tmp",
        "--setenv", "PYTHONPATH", "/system/lib", "--setenv", "PYTHONDONTWRITEBYTECODE", "1",
        "--chdir", "/",
    ]  # fmt: skip
