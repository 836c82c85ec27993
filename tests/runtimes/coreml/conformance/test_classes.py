"""Packages that name classes: the scores the label is chosen from are the output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coreml_cases import REGISTRY, TARGETS, Case, ct, mb, versions

from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME

REGISTRY.setdefault(__name__, []).extend(Case("classify", name, lambda draw, op, opset: draw) for name in versions("classify"))


@pytest.mark.parametrize("opset", versions("classify"))
@pytest.mark.parametrize("labels", [["ant", "bee", "cat"], [7, 8, 9]])
def test_scores_by_class(opset: str, labels: list[str] | list[int], save_program: Callable[..., Path]) -> None:
    @mb.program(input_specs=[mb.TensorSpec((1, 3))], opset_version=TARGETS[opset])
    def program(x):
        return mb.softmax(x=x, axis=-1, name="scores")

    path = save_program(program, target=opset, classifier_config=ct.ClassifierConfig(labels))
    session, x = RUNTIME.load(path), np.float32([[1, 3, 2]])
    (found,) = session.run({"x": x}).values()
    np.testing.assert_allclose(found, np.exp(x) / np.exp(x).sum(), rtol=1e-6)
    classifier = read_package(path).classifier
    assert classifier is not None
    assert classifier.classes == tuple(str(label) for label in labels)
