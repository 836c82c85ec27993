"""An Arm Ethos-U as a device: cycles and memory from Vela, answers from TFLM's reference kernels."""

from __future__ import annotations

from edgekit.device_tests.transports.estimated import EstimatedDevice

__all__ = ["NpuEstimate"]


class NpuEstimate(EstimatedDevice):
    """A neural processor that a compiler's model of it stands for; see :mod:`edgekit.runtimes.vela`."""
