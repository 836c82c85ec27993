"""The initial RAM file system of the virtual machine: a shell, and the kernel modules without which there is no disk."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit.core.errors import IntegrityError

__all__ = ["archive", "module_files", "write_initramfs"]

_MODULES = ("virtio_mmio", "virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "virtio_net", "virtio-rng", "af_packet")
"""What the disk, the network and random numbers need; those built into the kernel have no file."""
_DEPENDS = re.compile(rb"\0?depends=([^\0]*)\0")
_FOLDER, _FILE = 0o040755, 0o100755


def write_initramfs(target: Path, *, modules: Path, shell: Path, init: str) -> None:
    """Write the file system, compressed.

    Args:
        target: Where to.
        modules: The kernel's folder of modules.
        shell: busybox, linked statically.
        init: The first program, a script.

    Raises:
        IntegrityError: The kernel's modules are compressed, or cannot be read.
    """
    found = module_files(modules, _MODULES)
    files = {"init": init.encode(), "bin/busybox": shell.read_bytes(), "bin/sh": shell.read_bytes()}
    files |= {f"modules/{path.name}": path.read_bytes() for path in found}
    files["modules/order"] = "\n".join(path.stem for path in found).encode() + b"\n"
    target.write_bytes(gzip.compress(archive(files), 1, mtime=0))


def module_files(modules: Path, names: tuple[str, ...]) -> list[Path]:
    """Files of modules and of all they depend on, each after what it needs; modules that are built in are left out.

    Dependencies stand in the module itself (``modinfo`` reads the same), so no ``depmod`` has to have run.

    Args:
        modules: The kernel's folder of modules.
        names: Modules wanted.

    Raises:
        IntegrityError: The modules are compressed.
    """
    known = {_plain(path.stem): path for path in modules.rglob("*.ko")}
    if not known:
        raise IntegrityError(f"{modules} holds no kernel modules (*.ko): this kernel's are compressed or missing.")
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        path = known.get(name)
        if path is None or name in found:
            return
        matched = _DEPENDS.search(path.read_bytes())
        for other in (matched.group(1).decode("ascii") if matched else "").split(","):
            add(_plain(other))
        found[name] = path

    for name in names:
        add(_plain(name))
    return list(found.values())


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files in one cpio archive of the "new ASCII" form (the kernel's Documentation/driver-api/early-userspace/buffer-format).

    Args:
        files: Path -> content; all are executable.
    """
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    entries = [(name, _FOLDER, b"") for name in folders] + [(name, _FILE, content) for name, content in files.items()]
    return b"".join(_records([*entries, ("TRAILER!!!", 0, b"")]))


def _records(entries: list[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for number, (name, mode, content) in enumerate(entries, start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def _plain(name: str) -> str:
    """A module's name as the kernel has it: ``virtio-rng`` is ``virtio_rng``."""
    return name.replace("-", "_")
