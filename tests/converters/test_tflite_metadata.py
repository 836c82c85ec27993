"""TFLite Model Metadata: written by hand, read back, and what a damaged one does."""

from __future__ import annotations

import io
import zipfile

import pytest

from edgekit.converters.preprocessing.tflite_metadata import LABELS_FILE, read_metadata, with_files, write_metadata
from edgekit.core.errors import IntegrityError
from edgekit.core.preprocessing import AudioPreprocessing, ImagePreprocessing
from edgekit.core.tensors import TensorSpec

IMAGE = ImagePreprocessing(input="image", size=(16, 20), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SPECS = [TensorSpec(name="image", shape=(1, 3, 16, 20), dtype="float32"), TensorSpec(name="age", shape=(1,), dtype="int32")]
SCORES = [TensorSpec(name="where", shape=(1, 4), dtype="float32"), TensorSpec(name="what", shape=(1, 3), dtype="float32")]


def written(record: object = IMAGE, labels: int = 3) -> bytes:
    return write_metadata("net", inputs=SPECS, outputs=SCORES, records={"image": record}, label_count=labels)


def test_an_image_input_is_described() -> None:
    model = with_files(b"a model", {LABELS_FILE: "cat\ndog\nowl"})
    found = read_metadata(written(), model)
    image, age = found.inputs
    assert (image.name, image.colour_space, image.size) == ("image", 1, (16, 20))
    assert image.mean == pytest.approx([255 * value for value in IMAGE.mean], rel=1e-6)
    assert image.std == pytest.approx([255 * value for value in IMAGE.std], rel=1e-6)
    assert (age.name, age.colour_space, age.size, age.mean) == ("age", None, None, ())
    assert found.label_files == {"what": LABELS_FILE}
    assert found.labels() == ("cat", "dog", "owl")


def test_colour_spaces_and_sound() -> None:
    assert read_metadata(written(IMAGE.replace(colour="bgr")), b"").inputs[0].colour_space == 0
    grey = IMAGE.replace(colour="grey", mean=(0.5,), std=(0.5,))
    assert read_metadata(written(grey), b"").inputs[0].mean == (127.5,)
    sound = AudioPreprocessing(input="image", sample_rate=16000, window=400)
    found = read_metadata(written(sound), b"").inputs[0]
    assert (found.colour_space, found.mean, found.std) == (None, (0.0,), (32768.0,))


def test_the_files_behind_a_model_are_a_zip_and_always_the_same() -> None:
    packed = with_files(b"TFL3 model", {LABELS_FILE: "käse\nbrot"})
    assert packed.startswith(b"TFL3 model") and packed == with_files(b"TFL3 model", {LABELS_FILE: "käse\nbrot"})
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.read(LABELS_FILE).decode() == "käse\nbrot"
    assert with_files(b"TFL3 model", {}) == b"TFL3 model"
    assert read_metadata(written(labels=0), b"").labels() == ()


def test_the_identifier_and_the_vtables_are_the_schema_s() -> None:
    data = written()
    assert data[4:8] == b"M001"
    assert b"1.0.0" in data and b"labels.txt" in data


@pytest.mark.parametrize("cut", [6, 40, 120])
def test_damaged_metadata_are_refused(cut: int) -> None:
    data = written()
    with pytest.raises(IntegrityError, match="TFLITE_METADATA is damaged"):
        read_metadata(data[:cut] if cut < 10 else data[:8] + b"\xff" * cut + data[8 + cut :], b"")
