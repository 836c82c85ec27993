"""An artifact -> a complete program, or file of an app, in the language asked for.

The parts lie beside this file: ``base`` of a language holds everything that is the same for all models; a part for the
target holds its ``Model``; a part for the kind of raw data holds ``prepare``. What is particular to the artifact (names,
shapes, types, labels, numbers of the preprocessing, tolerances of the self-test) is filled in.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from importlib import resources
from typing import Any

from edgekit.core.artifact import Artifact
from edgekit.core.errors import UsageError, nearest
from edgekit.core.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing, read_preprocessing
from edgekit.core.selftest import SelfTest
from edgekit.core.tensors import TensorSpec
from edgekit.snippets.languages import LANGUAGES, Language

__all__ = ["render"]

_RAW_TYPES = {
    "swift": {"float32": "Float", "float64": "Double", "int8": "Int8", "uint8": "UInt8", "int16": "Int16", "int32": "Int32",
              "int64": "Int64", "bool": "UInt8", "float16": "Float"},
    "kotlin": {"float32": "FloatArray", "float64": "DoubleArray", "int8": "ByteArray", "uint8": "ByteArray",
               "int16": "ShortArray", "int32": "IntArray", "int64": "LongArray", "bool": "ByteArray", "float16": "FloatArray"},
}  # fmt: skip
_SWIFT_ONNX_TYPES = {"float32", "int8", "uint8", "int32", "int64"}


class _Part(string.Template):
    """A file beside this one; what is filled in is written ``@@{name}``."""

    delimiter = "@@"


def render(artifact: Artifact, language: str) -> str:
    """Code that loads an artifact, prepares its input, runs it, and runs its self-test.

    Args:
        artifact: With its self-test, whose tolerances stand in the code.
        language: ``"python"``, ``"swift"``, ``"kotlin"`` or ``"cpp"``.

    Raises:
        UsageError: The language is unknown or has no runtime for the target, or the artifact carries no self-test.
    """
    if language not in LANGUAGES:
        raise UsageError(f"There are no snippets in '{language}', only in {', '.join(LANGUAGES)}.{nearest(language, LANGUAGES)}")
    chosen = LANGUAGES[language]
    if artifact.target not in chosen.runtimes:
        others = ", ".join(name for name, other in LANGUAGES.items() if artifact.target in other.runtimes) or "none"
        raise UsageError(f"Target '{artifact.target}' cannot be used from {chosen.title}. Languages for it: {others}.")
    if artifact.selftest is None:
        raise UsageError(
            f"Artifact '{artifact.label}' carries no self-test for the snippet to run. Export it again with --force."
        )
    if artifact.target == "onnx" and language == "swift":
        _check_types(artifact)
    fields = _fields(artifact, SelfTest.load(artifact.selftest), chosen)
    parts = {name: _Part(_read(f"{file}.{chosen.suffix}")).substitute(fields).rstrip("\n") for name, file in _pieces(artifact)}
    return _Part(_read(f"base.{chosen.suffix}")).substitute({**fields, **parts})


def _pieces(artifact: Artifact) -> tuple[tuple[str, str], ...]:
    """(Place in the base, file) of what depends on target and raw data."""
    is_image = isinstance(_preprocessing(artifact), ImagePreprocessing)
    return ("runtime", artifact.target), ("prepare", "image" if is_image else "values")


def _read(name: str) -> str:
    return resources.files("edgekit.snippets").joinpath(f"{name}.in").read_text(encoding="utf-8")


def _check_types(artifact: Artifact) -> None:
    known = ", ".join(sorted(_SWIFT_ONNX_TYPES))
    for spec in (*artifact.inputs, *artifact.outputs):
        if spec.dtype not in _SWIFT_ONNX_TYPES:
            raise UsageError(
                f"'{spec.name}' is {spec.dtype}, but ONNX Runtime's Swift API has tensors of {known} only."
                " Use the target coreml or tflite there."
            )


def _preprocessing(artifact: Artifact) -> Preprocessing | None:
    """What the artifact leaves to the app for the first input that has any; None where no input's is declared as a record."""
    records = read_preprocessing(artifact.preprocessing)
    return next((records[spec.name] for spec in artifact.inputs if spec.name in records), None)


def _fields(artifact: Artifact, record: SelfTest, language: Language) -> dict[str, str]:
    """Everything the parts can ask for."""
    literals = language.literals
    preprocessing = _preprocessing(artifact)
    place = _place(artifact, preprocessing)
    words = {"model": artifact.path.name, "folder": artifact.label}
    plain = {
        "title": f"{language.title} code for {artifact.label}: load {artifact.path.name}, prepare its input, run it, test it.",
        "needs": language.needs(artifact, has_pictures=isinstance(preprocessing, ImagePreprocessing)),
        "imports": language.imports(artifact, has_pictures=isinstance(preprocessing, ImagePreprocessing)),
        "file": f"{artifact.label.replace('-', '_')}.{language.suffix}",
        "model_name": artifact.path.name,
        "asset_folder": artifact.label,
        "package": "edgekit.model",
        "signature": str(getattr(artifact.options, "signature", None) or "serving_default"),
        "litert_versions": "2.3 and later",
        "inputs": literals.tensors(record.inputs, artifact.inputs),
        "outputs": literals.tensors(record.outputs, artifact.outputs),
        "labels": literals.list_of_texts(artifact.labels),
        "prepared": str(place),
        "raw_argument": "image" if isinstance(preprocessing, ImagePreprocessing) else "values",
    }
    return {
        **plain,
        **{name: literals.text(value) for name, value in words.items()},
        **_prepare_fields(artifact.inputs[place], preprocessing, language, described=artifact.preprocessing),
    }


def _place(artifact: Artifact, preprocessing: Preprocessing | None) -> int:
    names = [spec.name for spec in artifact.inputs]
    if not names:
        raise UsageError(f"Artifact '{artifact.label}' has no inputs: there is nothing to prepare.")
    place = names.index(preprocessing.input) if preprocessing is not None and preprocessing.input in names else 0
    if preprocessing is not None and artifact.inputs[place].shape[:1] != (1,):
        raise UsageError(
            f"Input '{names[place]}' takes {list(artifact.inputs[place].shape)}; snippets prepare one sample at a time."
        )
    return place


def _prepare_fields(
    spec: TensorSpec,
    preprocessing: Preprocessing | None,
    language: Language,
    *,
    described: Mapping[str, Any],
) -> dict[str, str]:
    """What the part for raw data, and the base's ``to_input``, ask for."""
    literals = language.literals
    normalises = preprocessing is not None and preprocessing.output_dtype == "float32" and preprocessing.normalises
    raw_dtype = preprocessing.raw_dtype if preprocessing is not None else ("float32" if spec.scale else spec.dtype)
    quantizes = spec.scale is not None and (normalises or raw_dtype.startswith("float"))
    first = preprocessing is not None and _channels_first(spec, preprocessing)
    channels = preprocessing.channel_count if preprocessing is not None else 1
    shape = spec.shape
    if isinstance(preprocessing, AudioPreprocessing):
        shape = (preprocessing.window, preprocessing.channels)
    common = {
        "scale": literals.number(preprocessing.scale if preprocessing else 1.0),
        "mean": literals.list_of_numbers(preprocessing.mean if preprocessing else (0.0,)),
        "std": literals.list_of_numbers(preprocessing.std if preprocessing else (1.0,)),
        "normalises": literals.number(normalises),
        "quantizes": literals.number(quantizes),
        "channels": str(channels),
        "channels_first": literals.number(first),
        "preprocessing_words": _words(preprocessing, described),
        "raw_dtype": raw_dtype,
        "raw_shape": f"({', '.join(str(size) for size in shape)}{',' if len(shape) == 1 else ''})",
        "raw_shape_words": _shape_words(spec, preprocessing),
        "raw_words": "prepare RAW and run the model: " + language.raw(preprocessing, raw_dtype),
        "raw_type": _raw_type(language, raw_dtype),
    }
    return {**common, **(_picture_fields(preprocessing, language) if isinstance(preprocessing, ImagePreprocessing) else {})}


def _raw_type(language: Language, dtype: str) -> str:
    return _RAW_TYPES.get(language.name, {}).get(dtype, "")


def _picture_fields(preprocessing: ImagePreprocessing, language: Language) -> dict[str, str]:
    number = language.literals.number
    return {
        "height": str(preprocessing.size[0]),
        "width": str(preprocessing.size[1]),
        "resize": preprocessing.resize,
        "resize_to": str(preprocessing.resize_to or max(preprocessing.size)),
        "crop": preprocessing.crop,
        "interpolation": preprocessing.interpolation,
        "antialias": number(preprocessing.antialias),
        "grey": number(preprocessing.colour == "grey"),
        "swapped": number(preprocessing.colour == "bgr"),
    }


def _channels_first(spec: TensorSpec, preprocessing: Preprocessing) -> bool:
    """Whether channels come before the other axes: as declared, unless the file's own axes say otherwise."""
    declared = preprocessing.channel_axis == 1
    if isinstance(preprocessing, ImagePreprocessing):
        height, width, count = *preprocessing.size, preprocessing.channel_count
        first, last = spec.shape[1:] == (count, height, width), spec.shape[1:] == (height, width, count)
        return first if first != last else declared
    return declared


def _shape_words(spec: TensorSpec, preprocessing: Preprocessing | None) -> str:
    if isinstance(preprocessing, AudioPreprocessing):
        rate = preprocessing.sample_rate
        return f"{preprocessing.window} samples at {rate} Hz, {preprocessing.channels} channel(s) interleaved"
    return f"shape {list(spec.shape)}"


def _words(preprocessing: Preprocessing | None, described: Mapping[str, Any]) -> str:
    if preprocessing is not None:
        return "Preprocessing: each value becomes (raw * SCALE - MEAN) / STD, channel by channel."
    if described:
        said = json.dumps(dict(described), default=str, ensure_ascii=False)
        return f"Values go in as they are. The task describes its preprocessing so: {said}"
    return "Values go in as they are: the task declares no preprocessing."
