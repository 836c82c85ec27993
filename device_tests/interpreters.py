"""Python interpreters on devices: whether edgekit's agent can run in one, and what it has."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from edgekit.core.device_link import Link
from edgekit.core.errors import ProfileError
from edgekit.core.supervision import plain
from edgekit.device_tests.jobs import find_runtime

__all__ = ["PythonThere", "find_python", "install_command", "need_python"]

_TIMEOUT_S = 120.0
_INTERPRETERS = ("python3", "python3.13", "python3.12", "python3.11")
_OLDEST_PYTHON = (3, 11)
_MARK = "edgekit-python: "
_PROBE = """
import json, sys
found = {"python": list(sys.version_info[:3]), "executable": sys.executable, "modules": {}}
if sys.version_info >= (3, 10):
    from importlib import metadata, util
    holders = metadata.packages_distributions()
    for name in NAMES:
        if util.find_spec(name) is None:
            found["modules"][name] = None
        else:
            found["modules"][name] = metadata.version(holders[name][0]) if name in holders else "unknown"
    try:
        found["edgekit"] = metadata.version("edgekit")
    except metadata.PackageNotFoundError:
        pass
print(MARK + json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class PythonThere:
    """A Python interpreter on a device.

    Args:
        executable: Its whole path there.
        version: Of Python.
        edgekit: Version of edgekit in it; empty: not installed.
        modules: Module -> version of the package that brings it; empty: not installed.
    """

    executable: str
    version: tuple[int, ...]
    edgekit: str
    modules: Mapping[str, str]

    @property
    def obstacle(self) -> str:
        """Why edgekit's agent cannot run in it; empty where it can."""
        shown = ".".join(map(str, self.version))
        if self.version < _OLDEST_PYTHON:
            return f"{self.executable} is Python {shown}; edgekit needs {'.'.join(map(str, _OLDEST_PYTHON))} or later"
        here = metadata.version("edgekit")
        if self.edgekit != here:
            found = f"edgekit {self.edgekit}" if self.edgekit else "no edgekit"
            return f"{self.executable} has {found}, and {here} runs here"
        return ""

    def lacks(self, runtime: str) -> str:
        """The first module that a runtime needs and this Python does not have; empty where it has all."""
        return next((name for name in find_runtime(runtime).modules if not self.modules.get(name)), "")

    def version_of(self, runtime: str) -> str:
        """Version of the package that brings a runtime."""
        return next((self.modules.get(name, "") for name in find_runtime(runtime).modules), "")


def find_python(link: Link, *, python: str = "", runtimes: tuple[str, ...] = ()) -> PythonThere | None:
    """The Python on a device that edgekit's agent can run in; else the first there is, whose ``obstacle`` says why it cannot.

    Args:
        link: A connected link.
        python: The interpreter to ask; empty: those with the usual names.
        runtimes: Runtimes whose modules are asked for.

    Returns:
        None where no interpreter answers.

    Raises:
        DeviceError: The connection was lost.
    """
    modules = sorted({name for runtime in runtimes for name in find_runtime(runtime).modules})
    script = _PROBE.replace("NAMES", repr(modules)).replace("MARK", repr(_MARK))
    first = None
    for candidate in (python,) if python else _INTERPRETERS:
        answer = link.run(f"{_word(candidate)} -", timeout_s=_TIMEOUT_S, given=script.encode())
        found = _read_python(answer.output)
        if found is not None and not found.obstacle:
            return found
        first = first or found
    return first


def need_python(there: PythonThere | None, python: str, host: str) -> PythonThere:
    """The Python that was asked for by name.

    Raises:
        ProfileError: It is not there, or edgekit's agent cannot run in it.
    """
    if there is None:
        raise ProfileError(f"{host} has no Python '{python}'. Give its full path there: --python PATH")
    if there.obstacle:
        raise ProfileError(f"{host}: {there.obstacle}. Run there: {install_command(there.executable, 'onnx,tflite')}")
    return there


def install_command(python: str, extra: str) -> str:
    """What installs edgekit, as it is here, into a device's Python."""
    brackets = f"[{extra}]" if extra else ""
    here = metadata.version("edgekit")
    return f"{python} -m pip install 'edgekit{brackets}=={here}'"


def _read_python(output: str) -> PythonThere | None:
    """What the probe printed; logins may print more around it."""
    line = next((line for line in reversed(output.splitlines()) if line.startswith(_MARK)), "")
    try:
        found: dict[str, Any] = json.loads(line.removeprefix(_MARK))
        version = tuple(int(part) for part in found["python"])
        modules = {str(name): plain(str(value), most=40) if value else "" for name, value in found["modules"].items()}
        executable, installed = str(found["executable"]), str(found.get("edgekit", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return PythonThere(plain(executable, most=400), version, plain(installed, most=40), modules)


def _word(interpreter: str) -> str:
    r"""A word of a command line; the login's own folder may be meant by a tilde.

    >>> _word("~/my venv/bin/python"), _word("python3")
    ('"$HOME"/\'my venv/bin/python\'', 'python3')
    """
    if interpreter.startswith("~/"):
        return f'"$HOME"/{shlex.quote(interpreter[2:])}'
    return shlex.quote(interpreter)
