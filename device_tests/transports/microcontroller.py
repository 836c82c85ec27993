"""A microcontroller as a device: arena and flash, and the answers of TFLM's reference kernels, on this machine."""

from __future__ import annotations

from edgekit.device_tests.transports.estimated import EstimatedDevice

__all__ = ["Microcontroller"]


class Microcontroller(EstimatedDevice):
    """A processor without an operating system that TFLM on this machine stands for; see :mod:`edgekit.runtimes.tflite_micro`."""
