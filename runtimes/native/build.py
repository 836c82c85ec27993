"""Finds or builds edgekit-runner: CMake, once for each version of its sources, kept in the user's cache."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from edgekit.core.cache import cache_folder
from edgekit.core.errors import UsageError, WorkerError

__all__ = ["TARGETS", "RunnerTarget", "build_runner", "missing_tools", "runner_path", "source_digest"]

RunnerTarget = Literal["host", "aarch64"]
TARGETS: tuple[RunnerTarget, ...] = ("host", "aarch64")

_ROOT = Path(__file__).parent
_TOOLS: dict[str, tuple[str, ...]] = {"host": ("cmake", "c++"), "aarch64": ("cmake", "aarch64-linux-gnu-g++")}
_PACKAGES = {"host": "cmake g++ make", "aarch64": "cmake g++-aarch64-linux-gnu make"}
_TOOLCHAINS = {"aarch64": "aarch64-linux-gnu.cmake"}
_LIMIT_S = 600.0


def source_digest() -> str:
    """SHA-256 over the names and contents of everything the program is built from."""
    digest = hashlib.sha256()
    files = [*_ROOT.glob("src/*.cpp"), *_ROOT.glob("src/*.h"), *_ROOT.glob("*.cmake"), _ROOT / "CMakeLists.txt"]
    for file in sorted(files):
        digest.update(file.relative_to(_ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def missing_tools(target: RunnerTarget = "host") -> tuple[str, ...]:
    """Programs a build for the target needs and that are not installed."""
    return tuple(tool for tool in _TOOLS[target] if shutil.which(tool) is None)


def runner_path(target: RunnerTarget = "host", *, sanitize: bool = False) -> Path:
    """Where the program built from these sources lies in the cache, whether or not it is there.

    Args:
        target: Processor and system it runs on.
        sanitize: With the address and undefined-behaviour sanitizers.
    """
    kind = f"{target}-sanitized" if sanitize else target
    return _cache() / source_digest()[:16] / kind / "edgekit-runner"


def build_runner(target: RunnerTarget = "host", *, sanitize: bool = False) -> Path:
    """The program, built if it is not in the cache; ``EDGEKIT_RUNNER`` names another one to use for ``host``.

    Args:
        target: Processor and system it runs on.
        sanitize: With the address and undefined-behaviour sanitizers.

    Raises:
        UsageError: A tool that the build needs is not installed, or ``EDGEKIT_RUNNER`` names no file.
        WorkerError: The compiler refused the sources.
    """
    named = os.environ.get("EDGEKIT_RUNNER", "")
    if named and target == "host" and not sanitize:
        if not Path(named).is_file():
            raise UsageError(f"EDGEKIT_RUNNER names {named}, which is no file. Unset it, or give it edgekit-runner's path.")
        return Path(named)
    path = runner_path(target, sanitize=sanitize)
    if path.is_file() and _is_ours(path):
        return path
    missing = missing_tools(target)
    if missing:
        raise UsageError(
            f"Building edgekit-runner for {target} needs {', '.join(missing)}, not installed here. On Debian:"
            f" apt-get install {_PACKAGES[target]}. A program built elsewhere is used when EDGEKIT_RUNNER names it."
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _is_ours(path.parent):
        raise UsageError(f"{path.parent} belongs to another user. Name a folder of your own: EDGEKIT_CACHE=FOLDER.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        built = _compile(Path(folder), target, sanitize=sanitize)
        built.replace(path)  # two that build at once leave one whole program
    return path


def _compile(folder: Path, target: RunnerTarget, *, sanitize: bool) -> Path:
    words = ["cmake", "-S", str(_ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"]
    words += ["-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0"]  # one compilation: half the work
    words += [f"-DRUNNER_SANITIZE={'ON' if sanitize else 'OFF'}"]
    if target in _TOOLCHAINS:
        words.append(f"-DCMAKE_TOOLCHAIN_FILE={_ROOT / _TOOLCHAINS[target]}")
    jobs = str(os.cpu_count() or 1)
    for step in (words, ["cmake", "--build", str(folder), "--parallel", jobs]):
        try:
            done = subprocess.run(step, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired as reason:
            raise WorkerError(f"Building edgekit-runner took more than {_LIMIT_S:.0f} s: {' '.join(step)}") from reason
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines()
            raise WorkerError("edgekit-runner could not be built: " + "\n".join(lines[-20:]))
    return folder / "edgekit-runner"


def _cache() -> Path:
    """The user's cache; where that is off, a folder of this user among the temporary ones."""
    return (cache_folder() or Path(tempfile.gettempdir()) / f"edgekit-{getpass.getuser()}") / "runner"


def _is_ours(path: Path) -> bool:
    """Whether nobody else could have put a program there."""
    if not hasattr(os, "getuid"):
        return True
    facts = path.stat()
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o022
