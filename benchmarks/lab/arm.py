"""An Arm system without an Arm processor: Debian's arm64 Python and the runtimes' aarch64 wheels, run by qemu's user mode.

The instructions of the chosen core are emulated one by one, so the runtimes pick and run their real Arm kernels. What comes out
are that core's numbers, not its speed. Needs ``qemu-user-static`` and ``mmdebstrap`` (Debian packages), and root for the latter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np

from edgekit.core.errors import DeviceError, UsageError
from lab.exactness import Floats

__all__ = ["CORES", "WHEELS", "emulator_version", "launcher", "library_on_arm", "make_root", "run_on_arm"]

CORES = {"cortex-a53": 0xD03, "cortex-a72": 0xD08, "cortex-a76": 0xD0B}
"""Core -> part number, as Arm assigned it; runtimes choose kernels by it."""

WHEELS = ("onnxruntime", "ai-edge-litert", "numpy")
_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
_NEWER_FEATURES = "atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"  # Armv8.2, which the a76 has
_PACKAGES = (
    "python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "libc6", "libgcc-s1", "zlib1g", "libssl3", "libffi8",
    "libbz2-1.0", "liblzma5", "libexpat1",
)  # fmt: skip
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
_QEMU = "qemu-aarch64-static"
_SITE = Path("opt/site")


def emulator_version() -> str:
    """First line of the emulator's ``--version``.

    Raises:
        UsageError: It is not installed.
    """
    for tool in (_QEMU, "mmdebstrap"):
        if shutil.which(tool) is None:
            raise UsageError(f"{tool} is not installed. On Debian: apt-get install qemu-user-static mmdebstrap")
    text = subprocess.run([_QEMU, "--version"], check=True, capture_output=True, text=True).stdout
    return text.splitlines()[0]


def make_root(root: Path) -> None:
    """Make the Arm system in ``root`` if it is not there: about a minute, and 200 MB from Debian and PyPI."""
    if (root / _SITE / "numpy").is_dir():
        return
    words = ["mmdebstrap", "--arch=arm64", "--variant=extract", f"--include={','.join(_PACKAGES)}", "bookworm", str(root)]
    subprocess.run(words, check=True)
    versions = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"]
    subprocess.run([*pip, *platforms, "--target", str(root / _SITE), *versions], check=True)


def launcher(root: Path, core: str) -> list[str]:
    """What stands before an aarch64 program to run it on an emulated core; the core's ``/proc/cpuinfo`` is put in place."""
    _describe_processor(root, core)
    return [_QEMU, "-cpu", core, "-L", str(root)]


def library_on_arm(root: Path, target: str) -> Path:
    """The aarch64 library of a runtime: ``"tflite"`` or ``"onnx"``."""
    site = root / _SITE
    return site / "ai_edge_litert/libLiteRt.so" if target == "tflite" else next(site.glob("onnxruntime/capi/libonnxruntime.so.*"))


def run_on_arm(root: Path, core: str, *, target: str, model: Path, inputs: Floats, limit_s: float) -> Floats:
    """Answers ``[M, ...]`` of a file on an emulated core, for as many inputs as the time allows.

    Raises:
        DeviceError: The emulated process failed.
    """
    start = launcher(root, core)
    with tempfile.TemporaryDirectory() as temporary:
        given, found = Path(temporary) / "inputs.npy", Path(temporary) / "outputs.npy"
        np.save(given, inputs)
        script = Path(__file__).with_name("arm_answers.py")
        words = [*start, str(root / "usr/bin/python3.11"), str(script), target]
        environment = {**os.environ, "PYTHONPATH": str(root / _SITE), "PYTHONHOME": str(root / "usr"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*words, str(model), str(given), str(found), str(limit_s)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise DeviceError(f"{target} on {core} ended with code {done.returncode}: {lines[-1] if lines else 'no message'}")
        result: Floats = np.load(found)
        return result


def _describe_processor(root: Path, core: str) -> None:
    """Write the core's ``/proc/cpuinfo``: without it both runtimes read the host's, and crash."""
    features = _FEATURES if core != "cortex-a76" else f"{_FEATURES} {_NEWER_FEATURES}"
    lines = [
        "BogoMIPS\t: 108.00", f"Features\t: {features}", "CPU implementer\t: 0x41", "CPU architecture: 8", "CPU variant\t: 0x0",
        f"CPU part\t: {CORES[core]:#05x}", "CPU revision\t: 3", "",
    ]  # fmt: skip
    text = "\n".join("\n".join([f"processor\t: {index}", *lines]) for index in range(4))
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(text + "\n", encoding="utf-8")
