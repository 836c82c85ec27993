"""The calibration doctor: is a task's calibration data good enough, and how many samples are needed?

:mod:`~edgekit.compression.doctor.tensors` watches the float graph, :mod:`~edgekit.compression.doctor.samples` looks at the
samples themselves, :mod:`~edgekit.compression.doctor.findings` judges.
"""

from __future__ import annotations
