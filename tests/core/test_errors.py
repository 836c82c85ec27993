from __future__ import annotations

import pickle

import pytest

from edgekit.core import errors
from edgekit.core.errors import EdgekitError, MissingExtraError, nearest


def test_tree_in_docstring_is_the_tree() -> None:
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if len(words) > 1 and words[0].endswith("Error") and words[1].isdigit():
            drawn[words[0]] = int(words[1])
    classes = {
        name: getattr(errors, name).exit_code
        for name in errors.__all__
        if name not in {"EdgekitError", "nearest"}
    }  # fmt: skip
    assert drawn == classes


def test_missing_extra_names_its_command() -> None:
    error = MissingExtraError("coreml", module="coremltools")
    assert "pip install 'edgekit[coreml]'" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (again.extra, again.module, str(again)) == ("coreml", "coremltools", str(error))


@pytest.mark.parametrize(("word", "found"), [("onxn", " Did you mean 'onnx'?"), ("zebra", "")])
def test_nearest(word: str, found: str) -> None:
    assert nearest(word, ["onnx", "tflite", "coreml"]) == found


def test_every_error_is_an_edgekit_error() -> None:
    assert all(issubclass(getattr(errors, name), EdgekitError) for name in errors.__all__ if name != "nearest")
