"""Makes the virtual machine's disk: Debian packages unpacked, an SSH server, keys of its own; kept in the user's cache.

No package's own script runs, so nothing foreign is executed; no loop device and no root rights are needed, because the file
system is written by ``mke2fs -d``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgekit.core.cache import cache_folder
from edgekit.core.errors import DeviceError
from edgekit.core.files import replace_folder
from edgekit.device_tests.virtual_machine.initramfs import write_initramfs

__all__ = ["TOOLS", "Image", "image_folder", "make_image", "missing_tools"]

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh-keygen": "openssh-client",
    "qemu-system-aarch64": "qemu-system-arm",
}
"""Program -> Debian package."""
USER = "edgekit"

_SUITE = "bookworm"
_PACKAGES = (
    "linux-image-arm64", "openssh-server", "busybox-static", "dash", "coreutils", "util-linux", "sed", "grep", "findutils",
    "procps", "mount", "hostname", "libstdc++6",
)  # fmt: skip
_DISK_MB = 1024
_ID = 1000
_BUILD_LIMIT_S = 900.0
_UNUSED = (
    "boot",
    "lib/modules",
    "usr/lib/modules",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/cache",
    "var/lib/apt",
)


@dataclasses.dataclass(frozen=True)
class Image:
    """A machine that can be started.

    Args:
        folder: Where its files lie: ``kernel``, ``initramfs``, ``disk``, ``key``, ``host_key.pub``.
    """

    folder: Path

    @property
    def kernel(self) -> Path:
        """Debian's kernel."""
        return self.folder / "kernel"

    @property
    def initramfs(self) -> Path:
        """See :mod:`.initramfs`."""
        return self.folder / "initramfs"

    @property
    def disk(self) -> Path:
        """An ext4 file system."""
        return self.folder / "disk"

    @property
    def key(self) -> Path:
        """The private key that opens it."""
        return self.folder / "key"

    def known_host(self, port: int) -> str:
        """The line of ``known_hosts`` for the machine at a port of this one."""
        kind, key = (self.folder / "host_key.pub").read_text(encoding="ascii").split()[:2]
        return f"[127.0.0.1]:{port} {kind} {key}\n"


def missing_tools() -> tuple[str, ...]:
    """Debian packages whose programs are not installed here."""
    return tuple(package for tool, package in TOOLS.items() if shutil.which(tool, path=_PATH) is None)


def image_folder() -> Path:
    """Where the image of this version of edgekit lies, whether or not it was made."""
    digest = hashlib.sha256(repr((_SUITE, _PACKAGES, _DISK_MB)).encode())
    for name in ("init", "rc", "inittab", "sshd_config"):
        digest.update(_guest(name).encode())
    root = cache_folder() or Path(tempfile.gettempdir()) / f"edgekit-{os.getuid()}"
    return root / "arm64-vm" / digest.hexdigest()[:16]


def make_image(*, log: Path | None = None) -> Image:
    """The image, made if it is not in the cache: about half a minute and 60 MB from Debian.

    Args:
        log: What the tools say is appended to it.

    Raises:
        DeviceError: A tool is missing, or failed: there is no network, no room.
    """
    folder = image_folder()
    if (folder / "disk").is_file() and folder.stat().st_uid == os.getuid():
        return Image(folder)
    if missing := missing_tools():
        raise DeviceError(f"The virtual machine cannot be made here: install Debian {' '.join(missing)}.", is_final=True)
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as name:
        made = Path(name, "image")
        made.mkdir(mode=0o700)
        _make(made, Path(name, "root"), log)
        replace_folder(made, folder)
    return Image(folder)


def _make(made: Path, root: Path, log: Path | None) -> None:
    _call(
        ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)], log
    )
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, made / "kernel")
    (modules,) = (root / "lib" / "modules").iterdir()
    write_initramfs(made / "initramfs", modules=modules, shell=root / "bin" / "busybox", init=_guest("init"))
    for place in _UNUSED:
        shutil.rmtree(root / place, ignore_errors=True)
    _make_keys(made, log)
    _set_up(root, made)
    with (made / "disk.partial").open("wb") as stream:
        stream.truncate(_DISK_MB << 20)
    _call(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(root), str(made / "disk.partial")], log)
    (made / "disk.partial").replace(made / "disk")


def _make_keys(made: Path, log: Path | None) -> None:
    """Keys that open this machine and nothing else."""
    for name in ("key", "host_key"):
        _call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgekit-arm64-vm", "-f", str(made / name)], log)


def _set_up(root: Path, made: Path) -> None:
    """What packages' own scripts would have done, as far as an SSH server needs it."""
    for folder in ("etc/ssh", f"home/{USER}", "proc", "sys", "dev", "run", "tmp", "root", "var/empty"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    files = {
        "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/bin/false\n"
                      f"{USER}:x:{_ID}:{_ID}::/home/{USER}:/bin/sh\n",
        "etc/group": f"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n{USER}:x:{_ID}:\n",
        "etc/shadow": f"root:*:1::::::\n{USER}:*:1::::::\n",
        "etc/inittab": _guest("inittab"),
        "etc/ssh/sshd_config": _guest("sshd_config"),
        "etc/ssh/authorized_keys": (made / "key.pub").read_text(encoding="ascii"),
    }  # fmt: skip
    for place, text in files.items():
        (root / place).write_text(text, encoding="utf-8")
    (root / "etc" / "rc").write_text(_guest("rc"), encoding="utf-8")
    (root / "etc" / "rc").chmod(0o755)
    shutil.copy(made / "host_key", root / "etc" / "ssh" / "host_key")
    (root / "etc" / "ssh" / "host_key").chmod(0o600)
    (root / "home" / USER).chmod(0o777)  # its owner is whoever makes the image
    (root / "sbin" / "init").unlink(missing_ok=True)
    (root / "sbin" / "init").symlink_to("/bin/busybox")


def _guest(name: str) -> str:
    return importlib.resources.files("edgekit.device_tests.virtual_machine").joinpath("guest", name).read_text(encoding="utf-8")


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""``mke2fs`` lies where a user's own path may not lead."""


def _call(words: list[str], log: Path | None) -> None:
    environment = {**os.environ, "PATH": _PATH}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL, timeout=_BUILD_LIMIT_S
        )
    except subprocess.TimeoutExpired as reason:
        raise DeviceError(f"Making the virtual machine: {words[0]} took more than {_BUILD_LIMIT_S:.0f} s.") from reason
    text = done.stdout + done.stderr
    if log is not None and text:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(text)
    if done.returncode != 0:
        lines = [line for line in text.splitlines() if line.strip()]
        raise DeviceError(
            f"The virtual machine cannot be made: {words[0]} ended with code {done.returncode}. Its last words:"
            f" {' | '.join(lines[-3:]) or 'none'}",
            is_final=True,
        )
