"""Vela in a process of its own: it crashes on files that are no models, and what it prints is part of its report."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from edgekit.core.errors import ConversionError, WorkerError
from edgekit.runtimes.vela.configuration import Configuration
from edgekit.runtimes.vela.report import Report, read_report

__all__ = ["compile_model", "vela_version"]

_LIMIT_S = 1800.0
_LAST_CHARACTERS = 400


def compile_model(path: Path, configuration: Configuration) -> tuple[Report, bytes]:
    """Compile a ``.tflite`` file for an Ethos-U.

    Args:
        path: A file LiteRT has accepted.
        configuration: What for.

    Returns:
        Vela's report, and the compiled file that goes onto the device.

    Raises:
        ConversionError: Vela refuses the file or the configuration, or reports in a form that is not known.
        WorkerError: Vela crashed, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-vela-") as folder:
        said = _call(path, configuration, Path(folder))
        stem = path.resolve().stem
        names = (f"{stem}_summary_{configuration.system_config}.csv", f"{stem}_per-layer.csv", f"{stem}_vela.tflite")
        for name in names:
            if not Path(folder, name).is_file():
                raise ConversionError(f"{path}: Vela {vela_version()} wrote no {name}. It said: {_end_of(said)}")
        summary, layers = (Path(folder, name).read_text(encoding="utf-8") for name in names[:2])
        return read_report(summary, layers, said, version=vela_version()), Path(folder, names[2]).read_bytes()


def vela_version() -> str:
    """Version of ethos-u-vela."""
    return metadata.version("ethos-u-vela")


def _call(path: Path, configuration: Configuration, folder: Path) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ethosu.vela", *_words(path, configuration, folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired as reason:
        raise WorkerError(f"{path}: Vela took more than {_LIMIT_S / 60:.0f} minutes; it was ended.") from reason
    said, errors = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    if done.returncode < 0:
        raise WorkerError(f"{path}: Vela {vela_version()} crashed ({signal.Signals(-done.returncode).name}) for {configuration}.")
    if done.returncode:
        raise ConversionError(
            f"{path}: Vela {vela_version()} refuses it for {configuration}: {_end_of(errors or said)}. Choose another"
            " configuration, or export the model otherwise."
        )
    return said + errors


def _words(path: Path, configuration: Configuration, folder: Path) -> list[str]:
    words = [
        str(path.resolve()),
        "--output-dir", str(folder),
        "--config", configuration.config,
        "--accelerator-config", configuration.accelerator,
        "--system-config", configuration.system_config,
        "--memory-mode", configuration.memory_mode,
        "--optimise", configuration.optimise,
        "--verbose-performance",
    ]  # fmt: skip
    if configuration.arena_cache_size is not None:
        words += ["--arena-cache-size", str(configuration.arena_cache_size)]
    return words


def _end_of(text: str) -> str:
    """The last line, which of a traceback is the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-_LAST_CHARACTERS:].rstrip(".") if lines else "nothing"
