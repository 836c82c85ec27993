"""Jobs on a device that has no Python: edgekit-runner and a runtime's library are all that is sent there."""

from edgekit.device_tests.native_agent.agent import NativeAgent

__all__ = ["NativeAgent"]
