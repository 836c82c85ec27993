"""A Mac reached over SSH, where Core ML itself predicts: the Python agent there, with coremltools and the runtime ``coreml``.

The compute units are the runtime's option: ``runtimes.coreml.options.provider`` in the profile. No Mac can be reached from
where edgekit is tested; what is tested is all but the Mac: the link, the carrier, the agent, and the facts in text that
``sysctl`` is known to print.
"""

from __future__ import annotations

from edgekit.core.errors import ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.transports.ssh import SshTransport

__all__ = ["MacTransport"]

_SYSTEM = "Darwin"


class MacTransport(SshTransport):
    """A Mac with "Remote Login" switched on (System Settings, General, Sharing).

    Args:
        profile: Its ``connection`` as for ssh; ``python`` with its full path, since a login by SSH sees few of them.

    Raises:
        ProfileError: The connection's settings are wrong, or ask for an agent that cannot run Core ML.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        if (agent := profile.connection.get("agent", "python")) != "python":
            raise ProfileError(
                f"Profile '{profile.name}': connection.agent is '{agent}'; Core ML is run by coremltools, which needs 'python'."
            )
        super().__init__(profile)

    def facts(self) -> dict[str, str]:
        """What the Mac says of itself.

        Raises:
            DeviceError: It was lost.
            ProfileError: It is no Mac.
        """
        found = super().facts()
        if (system := found.get("system", "an unknown system")) != _SYSTEM:
            raise ProfileError(
                f"Profile '{self.profile.name}' reaches its device by 'mac', and {system} runs there, not macOS. Use"
                " transport = \"ssh\"; Core ML models run there in the runtime 'coreml-reference'."
            )
        return found
