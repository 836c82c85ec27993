"""MobileNetV2 with its published ImageNet weights: how often does the int8 model say the same as the float one?

::

    edgekit compress examples/mobilenet/task.py --recipe int8 -o runs/mobilenet
"""

from __future__ import annotations

import data
import model
import numpy as np

import edgekit

task = edgekit.Task(
    name="mobilenet",
    model=model.pretrained,
    example_inputs=np.zeros((1, 3, data.SIZE, data.SIZE), np.float32),
    calibration=data.calibration,
    evaluation=data.evaluation,
    metric=edgekit.agreement,
    preprocessing={"size": data.SIZE, "range": (0, 1), "mean": data.MEAN, "std": data.STD, "layout": "NCHW", "colours": "RGB"},
)
