"""Where the runtimes' shared libraries lie, found without importing anything: they come with the Python packages."""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit.core.errors import UsageError

__all__ = ["arm_library", "library_in", "library_of", "machine_of", "version_beside", "version_of"]

_PLACES: Mapping[str, tuple[str, str, str]] = {
    "onnx": ("onnxruntime", "capi", "libonnxruntime.so*"),
    "tflite": ("ai_edge_litert", "", "libLiteRt.so"),
}
"""Target -> package, folder in it, and file name."""
_ASSETS = {"onnx": "onnxruntime-arm64", "tflite": "litert-arm64"}
"""Target -> folder that ``examples/assets.py`` makes."""
_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64"}
"""``e_machine`` of the ELF header (System V ABI, chapter 4, and its supplements) -> what ``uname -m`` says."""


def library_of(target: str) -> Path:
    """The library that runs a target's files.

    Args:
        target: ``"onnx"`` or ``"tflite"``.

    Raises:
        UsageError: The package is not installed, or ships no library.
    """
    package, folder, pattern = _PLACES[target]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError(f"'{package}' is not installed, and no other library was named. Name one: option library=PATH.")
    place = Path(spec.origin).parent / folder
    found = sorted(path for path in place.glob(pattern) if path.is_file())
    if not found:
        raise UsageError(f"{place} holds no {pattern}. Install '{package}' again, or name a library: option library=PATH.")
    return found[0]


def library_in(folder: Path, target: str) -> Path | None:
    """A target's library in a folder, or in packages unpacked there; None where it holds none."""
    package, inner, pattern = _PLACES[target]
    places = (folder, folder / package / inner, folder / "opt" / "site" / package / inner)
    return next((path for place in places for path in sorted(place.glob(pattern)) if path.is_file()), None)


def arm_library(target: str) -> Path:
    """A target's library for 64-bit Arm Linux, among the assets.

    Raises:
        UsageError: It is not there; says how to get it.
    """
    for assets in _asset_folders():
        for folder in (assets / _ASSETS[target], assets / "arm64"):
            if found := library_in(folder, target):
                return found
    package = _PLACES[target][0].replace("_", "-")
    raise UsageError(
        f"There is no 64-bit Arm library for {target} files here. Fetch it with: python examples/assets.py {_ASSETS[target]}; or"
        f" unpack {package}'s wheel for Arm (pip download --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64"
        f" {package}) and name that folder: connection.library."
    )


def machine_of(program: Path) -> str:
    """The architecture a program or library was built for, as ``uname -m`` says it; empty where it is no ELF file.

    >>> machine_of(Path(__file__))
    ''
    """
    with program.open("rb") as stream:
        start = stream.read(20)
    if len(start) < 20 or start[:4] != b"\x7fELF":
        return ""
    (code,) = struct.unpack("<H" if start[5] == 1 else ">H", start[18:20])
    return _MACHINES.get(code, f"machine {code}")


def version_of(target: str) -> str:
    """Version of the package that brings a target's library.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    from importlib import metadata

    return metadata.version({"onnx": "onnxruntime", "tflite": "ai-edge-litert"}[target])


def version_beside(library: Path, target: str) -> str:
    """Version of the package that a library lies in, by the metadata unpacked with it; empty where there is none."""
    package = _PLACES[target][0]
    for folder in library.parents[:3]:
        for metadata in folder.glob(f"{package}-*.dist-info"):
            return metadata.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return ""


def _asset_folders() -> Iterator[Path]:
    """Where ``examples/assets.py`` puts what it fetches: ``EDGEKIT_ASSETS``, or beside a checkout's packages."""
    if named := os.environ.get("EDGEKIT_ASSETS", ""):
        yield Path(named)
    spec = importlib.util.find_spec("edgekit")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parents[1] / ".assets"
