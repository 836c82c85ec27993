"""Architecture -> what every target is given and judged by: programs on disk, second inputs, expected outputs.

::

    programs/NAME/float/, programs/NAME/int8/    compressed folders
    programs/NAME/float.npz, …/int8.npz          in/…, out/…: second inputs; answers of the net itself, and of the int8 program
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.architecture import Architecture
from zoo.judge import snr_db

__all__ = ["CALIBRATION_COUNT", "SECOND_SEEDS", "load_answers", "make_program"]

CALIBRATION_COUNT = 16
SECOND_SEEDS = (1001, 1002, 1003)
"""Inputs that neither tracing nor calibration has seen."""


def make_program(architecture: Architecture, place: Path, precision: str) -> dict[str, Any]:
    """Capture (and quantize) an architecture through edgekit's public road, and write what its cells need.

    Args:
        architecture: What to build.
        place: Folder of the architecture.
        precision: ``"float"`` or ``"int8"``.
    """
    import edgekit

    net = architecture.build()
    task = edgekit.Task(
        name=architecture.name,
        model=net,
        example_inputs=architecture.inputs(0),
        calibration=[architecture.inputs(seed) for seed in range(1, CALIBRATION_COUNT + 1)],
    )
    state = edgekit.compress(task, recipe="none" if precision == "float" else "int8")
    names = [spec.name for spec in state.record.outputs]
    inputs = [task.named_inputs(architecture.inputs(seed)) for seed in SECOND_SEEDS]
    stacked = {name: np.stack([given[name] for given in inputs]) for name in inputs[0]}
    state.save(place / precision)
    answers = _net_answers(architecture, net, names) if precision == "float" else _program_answers(state.program, stacked, names)
    stored = {f"in/{name}": array for name, array in stacked.items()} | {f"out/{name}": array for name, array in answers.items()}
    np.savez(place / f"{precision}.npz", **stored)
    details = state.record.history[-1].details
    found = {"operators": state.record.history[0].details["operator_count"], "outputs": names}
    if precision == "int8":
        floats = _net_answers(architecture, net, names)
        ratios = [snr_db(answers[name], floats[name]) for name in names if floats[name].dtype.kind == "f"]
        found |= {"integer_kernels": details["kernel_count"], "float_operators": details["float_operator_count"]}
        found["quantization_snr_db"] = min((ratio for ratio in ratios if np.isfinite(ratio)), default=None)
    return found


def load_answers(place: Path, precision: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Second inputs and expected outputs, each ``[S, *shape]`` by name and in order."""
    with np.load(place / f"{precision}.npz") as stored:
        inputs = {key[3:]: stored[key] for key in stored.files if key.startswith("in/")}
        outputs = {key[4:]: stored[key] for key in stored.files if key.startswith("out/")}
    return inputs, outputs


def _net_answers(architecture: Architecture, net: Any, names: list[str]) -> dict[str, np.ndarray]:
    import torch

    rows = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in SECOND_SEEDS:
            result = architecture.call(net, architecture.inputs(seed))
            parts = result.values() if isinstance(result, Mapping) else [result] if torch.is_tensor(result) else result
            rows.append(list(parts))
    return {name: np.stack([row[at].numpy() for row in rows]) for at, name in enumerate(names)}


def _program_answers(program: Any, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    from edgekit.core.program import answer_samples

    return answer_samples(program, inputs, names)
