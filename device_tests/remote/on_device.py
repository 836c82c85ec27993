"""``python -m edgekit.device_tests.remote.on_device``: on the device, executes the job folder it is started in.

The device runs a job just as this machine runs its own: in a confined process that sees only what its runtime needs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_text
from edgekit.core.profile import DeviceProfile
from edgekit.core.remote_errors import describe_error
from edgekit.core.spawned_child import CONFINED
from edgekit.device_tests.transports.local import LocalTransport

__all__ = ["execute"]

_NO_LIMIT_S = 1e9
"""The one that started this limits its time."""


def execute(folder: Path) -> None:
    """Run the folder's job and write ``agent.txt``: ``ok``, or what edgekit says is wrong with it.

    Raises:
        OSError: The disk is full.
    """
    os.environ[CONFINED] = "1"  # all processes stay in the group by which the job is ended
    here = LocalTransport(DeviceProfile(name="this-device", title="This device", runtimes={}))
    log = folder / ".agent-log.txt"
    try:
        here.run_agent(folder, timeout_s=_NO_LIMIT_S, log=log)
        words = ["ok"]
    except EdgekitError as reason:
        words = ["error", json.dumps(describe_error(reason))]
        for name in ("result.json", "outputs.npz"):
            write_text(folder / name, "")
    finally:
        if log.exists():
            os.write(2, log.read_bytes())
    write_text(folder / "agent.txt", "\n".join([*words, ""]))


if __name__ == "__main__":
    execute(Path.cwd())
