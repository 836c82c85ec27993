"""Keras and SavedModel files: written by TensorFlow in a process of its own, whose answers are the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.compressed import Compressed
from edgekit.core.errors import IntegrityError
from edgekit.core.source import SourceOptions
from edgekit.intake import import_apart

pytestmark = pytest.mark.slow
pytest.importorskip("tf2onnx", reason="needs pip install 'edgekit[tensorflow]'")

WRITER = """
import os, sys
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", KERAS_BACKEND="tensorflow")
import numpy as np
import keras
from keras import layers as L

keras.utils.set_random_seed(0)
image, hint = keras.Input((16, 16, 3), name="image"), keras.Input((4,), name="hint")
x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
x = L.ReLU(6.0)(L.BatchNormalization()(x))
y = L.DepthwiseConv2D(3, padding="same")(x)
x = L.Add()([x, L.Conv2D(8, 1, activation="hard_swish")(y)])
gate = L.Conv2D(8, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
x = L.MaxPooling2D()(L.Multiply()([x, gate]))
x = L.Concatenate()([L.GlobalAveragePooling2D()(x), L.Dense(4, activation="gelu")(hint)])
outputs = {"probs": L.Dense(5, activation="softmax", name="probs")(x), "score": L.Dense(1, name="score")(x)}
model = keras.Model([image, hint], outputs)
draw = np.random.default_rng(0)
for weight in model.weights:
    weight.assign(np.abs(draw.standard_normal(weight.shape)) * 0.3 + 0.05)
given = {"image": draw.standard_normal((3, 16, 16, 3)).astype("float32"), "hint": draw.standard_normal((3, 4)).astype("float32")}
answers = {name: np.asarray(value) for name, value in model([given["image"], given["hint"]]).items()}
model.save("net.keras")
model.export("saved", verbose=False)
lambda_net = keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2)])
lambda_net.save("lambda.keras")
np.savez("given.npz", **given)
np.savez("answers.npz", **answers)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "HOME": str(place)}
    done = subprocess.run([sys.executable, "-c", WRITER], cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.mark.parametrize(("name", "permutes"), [("net.keras", 1), ("saved", 2)])
def test_the_program_answers_as_tensorflow_does(folder: Path, name: str, permutes: int, tmp_path: Path) -> None:
    """The input's own permutation stays; tf2onnx leaves another before a mean."""
    options = SourceOptions(samples=str(folder / "given.npz"))
    import_apart(folder / name, tmp_path / "made", options=options, log=tmp_path / "log.txt")
    made = Compressed.load(tmp_path / "made")
    assert {spec.name: spec.shape for spec in made.record.inputs} == {"image": (1, 16, 16, 3), "hint": (1, 4)}
    with np.load(folder / "answers.npz") as expected:
        outputs = {spec.name: spec.shape for spec in made.record.outputs}
        assert outputs == {"probs": (1, 5), "score": (1, 1)}
        for key, values in made.golden.outputs.items():
            np.testing.assert_allclose(values[:, 0], expected[key], rtol=1e-4, atol=1e-5)
    targets = [str(node.target) for node in made.program.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.conv2d.default") == 4
    assert targets.count("aten.permute.default") <= permutes, targets
    assert not [target for target in targets if "assert" in target or "batch_norm" in target]


def test_a_lambda_layer_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"holds Python code \(a Lambda\)"):
        import_apart(folder / "lambda.keras", tmp_path / "made", log=tmp_path / "log.txt")
    assert not (tmp_path / "made").exists()


def test_a_damaged_saved_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes((folder / "saved" / "saved_model.pb").read_bytes()[:200])
    with pytest.raises(IntegrityError, match="is no SavedModel TensorFlow"):
        import_apart(tmp_path / "saved", tmp_path / "made", log=tmp_path / "log.txt")


def test_weights_that_are_missing_are_refused(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "net.keras") as old, zipfile.ZipFile(tmp_path / "net.keras", "w") as new:
        for member in old.infolist():
            if not member.filename.endswith(".h5"):
                new.writestr(member.filename, old.read(member))
    with pytest.raises(IntegrityError, match="is no model Keras"):
        import_apart(tmp_path / "net.keras", tmp_path / "made", log=tmp_path / "log.txt")
