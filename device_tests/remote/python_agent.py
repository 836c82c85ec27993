"""Jobs on a device that has Python and edgekit: the agent there is the one that runs on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path

from edgekit.core.device_link import Errand
from edgekit.core.errors import IntegrityError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.core.remote_errors import raise_error
from edgekit.device_tests.jobs import Job

__all__ = ["PythonAgent"]

_SCRIPT = "run_python.sh"
_RETURNS = ("result.json", "outputs.npz", "agent.txt")
_LOCAL_SCRIPT = ".run_python.sh"


class PythonAgent:
    """Executes job folders with ``PYTHON -m edgekit.device_tests.remote.on_device`` on the device.

    Args:
        profile: Its ``connection.python`` names the interpreter there, ``python3`` where it names none.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        self.python = str(profile.connection.get("python", "python3"))

    def prepare(self, job: Path, *, facts: Mapping[str, str]) -> Errand:  # noqa: ARG002
        """All of the folder travels; the device's architecture is its Python's concern."""
        script = job / _LOCAL_SCRIPT
        script.write_bytes(resources.files("edgekit.device_tests.remote").joinpath(_SCRIPT).read_bytes())
        own = {script, *(job / name for name in _RETURNS)}
        files = {path.relative_to(job).as_posix(): path for path in sorted(job.rglob("*")) if path.is_file() and path not in own}
        return Errand(
            files={**files, _SCRIPT: script},
            commands=[["sh", f"./{_SCRIPT}", self.python, _own_version()]],
            returns=_RETURNS,
            environment={"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
        )

    def collect(self, job: Path) -> None:
        """Raise what the agent reported; else ``result.json`` and ``outputs.npz`` are there already.

        Raises:
            EdgekitError: What the agent on the device says of the model.
            ProfileError: The device lacks Python, edgekit or the runtime; says how to install it.
            IntegrityError: What came back is no report.
        """
        report = job / "agent.txt"
        word, _, rest = report.read_text(encoding="utf-8", errors="replace").partition("\n")
        report.unlink()
        if word == "ok":
            return
        for name in ("result.json", "outputs.npz"):
            (job / name).unlink(missing_ok=True)
        plan = Job.read_json(job / "job.json")
        if word == "error":
            self._raise(rest, plan)
        self._explain(word, rest.strip(), plan)

    def _raise(self, text: str, plan: Job) -> None:
        try:
            answer = json.loads(text)
        except ValueError as reason:
            raise IntegrityError(f"The agent on device '{self.profile.name}' reported something unreadable.") from reason
        if isinstance(answer, dict) and answer.get("error") == "MissingExtraError":
            raise ProfileError(
                f"Device '{self.profile.name}' cannot run '{plan.runtime}': the Python there ({self.python}) lacks"
                f" '{str(answer.get('module'))[:80]}'. {self._install(str(answer.get('extra'))[:40])}"
            )
        raise_error({"error": "", **answer} if isinstance(answer, dict) else {"error": "", "message": text}, plan.what)

    def _explain(self, word: str, found: str, plan: Job) -> None:
        device = f"Device '{self.profile.name}'"
        extra = _extra(plan.runtime)
        found = found.splitlines()[-1][:120] if found else "nothing"
        explained = {
            "no-python": f"{device} has no '{self.python}'. Name the interpreter there as connection.python in the profile, with"
            " its full path.",
            "old-python": f"{device} has Python {found} as '{self.python}'; edgekit needs 3.11 or later. Name another one as"
            " connection.python in the profile.",
            "no-edgekit": f"{device} has '{self.python}', and no edgekit in it. {self._install(extra)}",
            "other-edgekit": f"{device} has edgekit {found}, and {_own_version()} runs here. {self._install(extra)}",
        }
        if word not in explained:
            raise IntegrityError(f"The agent on {device.lower()} reported something unknown: {word[:80]!r}.")
        raise ProfileError(explained[word])

    def _install(self, extra: str) -> str:
        brackets = f"[{extra}]" if extra else ""
        return f"Run there: {self.python} -m pip install 'edgekit{brackets}=={_own_version()}'"


def _extra(runtime: str) -> str:
    """The packaging extra of a runtime in the registry; a plug-in's is its own affair."""
    from edgekit import registry

    return registry.runtime(runtime).extra if ":" not in runtime and runtime in registry.names("runtimes") else ""


def _own_version() -> str:
    return metadata.version("edgekit")
