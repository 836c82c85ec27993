"""Packages with several functions, and what is no ML program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.converters.coreml import quiet_coremltools
from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.package import model_file, read_package
from edgekit.runtimes.coreml.reference import RUNTIME

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb

WEIGHT = np.arange(100, dtype=np.float32).reshape(5, 20) / 50
X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(2, 20)


@pytest.fixture(scope="module")
def two(save_program: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One weight, shared by the functions ``plain`` and ``shifted``; the default is ``shifted``."""
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, shift in (("plain", 0.0), ("shifted", 3.0)):

        @mb.program(input_specs=[mb.TensorSpec((2, 20))], opset_version=ct.target.iOS18)
        def program(x):
            return mb.add(x=mb.linear(x=x, weight=WEIGHT), y=shift, name="y")  # noqa: B023  called at once

        path = save_program(program, target="iOS18")
        descriptor.add_function(str(path), src_function_name="main", target_function_name=name)
    descriptor.default_function_name = "shifted"
    path = tmp_path_factory.mktemp("functions") / "two.mlpackage"
    with quiet_coremltools():
        ct.utils.save_multifunction(descriptor, str(path))
    return path


@pytest.mark.parametrize(("function", "shift"), [("", 3.0), ("plain", 0.0), ("shifted", 3.0)])
def test_the_option_picks_one_and_the_package_says_the_default(two: Path, function: str, shift: float) -> None:
    session = RUNTIME.load(two, options={"function": function})
    (found,) = session.run({"x": X}).values()
    np.testing.assert_allclose(found, X @ WEIGHT.T + shift, rtol=1e-5)
    program = read_package(two, function=function)
    assert (program.function, program.functions) == (function or "shifted", ("plain", "shifted"))


def test_a_function_that_is_not_there(two: Path) -> None:
    with pytest.raises(UsageError, match=r"no function 'plian'; its functions are plain, shifted\. Did you mean 'plain'"):
        RUNTIME.load(two, options={"function": "plian"})


def edited(path: Path, folder: Path, change: Callable[..., object]) -> Path:
    """A copy of a package whose model file is changed."""
    model = model_messages().Model()
    model.ParseFromString(model_file(path).read_bytes())
    change(model)
    copy = Path(shutil.copytree(path, folder / "copy.mlpackage"))
    model_file(copy).write_bytes(model.SerializeToString())
    return copy


def test_a_default_that_is_not_there_is_damage(two: Path, tmp_path: Path) -> None:
    def change(model) -> None:
        model.description.defaultFunctionName = "gone"

    with pytest.raises(IntegrityError, match=r"default function is 'gone', but its functions are \['plain', 'shifted'\]"):
        read_package(edited(two, tmp_path, change))


def test_an_input_the_description_does_not_name_is_damage(two: Path, tmp_path: Path) -> None:
    def change(model) -> None:
        del model.description.functions[1].input[:]
        del model.description.functions[0].input[:]

    with pytest.raises(IntegrityError, match="takes 'x', which the description does not name"):
        read_package(edited(two, tmp_path, change))


KINDS = [
    "neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor", "pipeline", "pipelineClassifier",
    "treeEnsembleRegressor", "treeEnsembleClassifier", "glmRegressor", "supportVectorClassifier", "nonMaximumSuppression",
    "kNearestNeighborsClassifier", "wordTagger", "soundAnalysisPreprocessing", "customModel", "linkedModel", "imputer",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_model_say_what_they_are_and_what_to_do(kind: str, two: Path, tmp_path: Path) -> None:
    """As a package, and as the single file older models come in."""
    copy = edited(two, tmp_path, lambda model: getattr(model, kind).SetInParent())
    single = tmp_path / "old.mlmodel"
    single.write_bytes(model_file(copy).read_bytes())
    for path in (copy, single):
        with pytest.raises(UnsupportedOpError) as caught:
            RUNTIME.load(path)
        told = str(caught.value)
        assert f"of the kind '{kind}'" in told
        assert "ML programs ('mlProgram') only" in told
        assert "minimum_deployment_target=coremltools.target.iOS15" in told
        assert ("before iOS 15" in told) == kind.startswith("neuralNetwork")


def test_it_says_what_it_is() -> None:
    assert RUNTIME.version().endswith("(reference semantics, not the Neural Engine)")
