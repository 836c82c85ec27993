"""A pytest plug-in: coremltools' own tests with the reference executor in Core ML's place.

coremltools predicts on macOS only; elsewhere its tests build their models and skip the comparison. With this plug-in ``predict``
and ``make_state`` are the reference executor's, and the comparisons are made. Of each test function at most ``EDGEKIT_CASES``
cases that ask for float32 are kept, spread evenly over all. What became of them is written to ``EDGEKIT_ANSWER``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil import testing_utils
from coremltools.models import model, utils

from edgekit.runtimes.coreml.reference import RUNTIME

OUTCOMES: dict[str, list[str]] = {}
_PREDICTED: set[str] = set()


def _session(package: Any) -> Any:
    if not hasattr(package, "edgekit_session"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.mlpackage"
            package.save(str(path))
            package.edgekit_session = RUNTIME.load(path)
    return package.edgekit_session


def predict(self: Any, data: dict[str, Any], state: Any = None) -> dict[str, Any]:
    """In the place of ``MLModel.predict``."""
    _PREDICTED.add(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
    session = _session(self)
    inputs = {spec.name: np.ascontiguousarray(np.asarray(data[spec.name]).astype(spec.dtype)) for spec in session.inputs}
    found: dict[str, Any] = session.run(inputs) if state is None else session.run(inputs, state=state)
    return found


def make_state(self: Any) -> Any:
    """In the place of ``MLModel.make_state``."""
    return _session(self).make_state()


model.MLModel.predict = predict
model.MLModel.make_state = make_state
testing_utils._IS_MACOS = True
utils._macos_version = lambda: (15, 0)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    most, groups = int(os.environ["EDGEKIT_CASES"]), dict[str, list[Any]]()
    for item in items:
        if "precision='fp16'" not in item.nodeid:
            groups.setdefault(item.nodeid.partition("[")[0], []).append(item)
    items[:] = [item for group in groups.values() for item in group[:: max(1, len(group) // most)][:most]]


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcome = ("xfailed" if report.outcome == "skipped" else "xpassed") if hasattr(report, "wasxfail") else report.outcome
        OUTCOMES[report.nodeid] = [outcome, str(report.longrepr)[-1500:] if outcome == "failed" else ""]


def pytest_sessionfinish() -> None:
    predicted = {node for node in OUTCOMES if node in _PREDICTED or OUTCOMES[node][0] != "passed"}
    answer = json.dumps({node: OUTCOMES[node] for node in sorted(predicted)})
    Path(os.environ["EDGEKIT_ANSWER"]).write_text(answer, encoding="utf-8")
