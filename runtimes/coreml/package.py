"""Reading an ``.mlpackage``: a folder with a manifest, a model file, and weight files beside it.

Nothing in the package is trusted: paths must stay inside, and whatever does not parse or fit is an
:class:`~edgekit.core.errors.IntegrityError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgekit.core.errors import EdgekitError, IntegrityError, UnsupportedOpError, UsageError, nearest
from edgekit.core.tensors import DType, TensorSpec
from edgekit.runtimes.coreml.blocks import read_block, read_variable
from edgekit.runtimes.coreml.features import image_spaces, image_spec, open_axes, read_classifier
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.program import Program, Variable
from edgekit.runtimes.coreml.weights import WeightFiles

if TYPE_CHECKING:
    from edgekit.runtimes.coreml.program import Classifier, Value

__all__ = ["choose_function", "function_description", "model_file", "read_package"]

_FEATURE_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131080: "int8", 131104: "int32"}
"""``ArrayFeatureType.ArrayDataType`` of FeatureTypes.proto: 0x10000 marks floats, 0x20000 integers, plus the bits."""

_MAIN = "main"
_LONGEST_REASON = 200
"""The default where the description names none: every package of one function up to iOS 17."""


def read_package(path: Path, *, function: str = "") -> Program:
    """Read one function of an ML program.

    Args:
        path: The ``.mlpackage`` folder.
        function: Which one; the package's default where this is empty.

    Raises:
        IntegrityError: The package is incomplete, damaged, or points outside itself.
        UnsupportedOpError: It is a Core ML model of another kind, or has inputs that are not arrays.
        UsageError: It has no function of this name.
    """
    file = path if path.is_file() else model_file(path)
    try:
        model = model_messages().Model()
        model.ParseFromString(file.read_bytes())
        return _read_model(model, file, function)
    except EdgekitError as reason:
        raise type(reason)(f"{path}: {reason}") from reason
    except Exception as reason:  # a damaged file can break decoding anywhere; all of it means the same
        what = f"its model file cannot be decoded ({type(reason).__name__}: {reason})"
        raise IntegrityError(f"{path} is damaged: {what}.") from reason


def model_file(path: Path) -> Path:
    """The model file inside a package.

    Raises:
        IntegrityError: The package is incomplete or damaged, or points outside itself.
    """
    manifest = path / "Manifest.json"
    if not manifest.is_file():
        raise IntegrityError(f"{path} is no Core ML package: expected a folder with a Manifest.json.")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        relative = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
        found: Path = path / "Data" / relative
        is_inside, is_there = found.resolve().is_relative_to(path.resolve()), found.is_file()
    except (ValueError, KeyError, IndexError, TypeError, RecursionError, OSError) as reason:
        # UnicodeEncodeError (a lone surrogate) is a ValueError; a name too long for the file system is an OSError
        raise IntegrityError(
            f"{manifest} is damaged: it names no root model ({type(reason).__name__}: {_short(reason)})."
        ) from reason
    if not is_inside:
        raise IntegrityError(f"{manifest} names a model outside the package: {relative}. It is not to be trusted.")
    if not is_there:
        raise IntegrityError(f"{manifest} names the model {relative}, but {found} does not exist. The package is incomplete.")
    return found


def _short(reason: Exception) -> str:
    """What an exception says, without kilobytes of a damaged file."""
    said = ascii(str(reason))[1:-1]
    return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]}…"


def _read_model(model: Any, file: Path, wanted: str) -> Program:
    kind = model.WhichOneof("Type")
    if kind is None:
        raise IntegrityError(f"{file.name} is empty or damaged: it holds no model.")
    if kind != "mlProgram":
        raise UnsupportedOpError(_other_kind(kind))
    name = choose_function(model, wanted)
    function = model.mlProgram.functions[name]
    description = function_description(model, name)
    if function.opset not in function.block_specializations:
        raise IntegrityError(f"it has no block for its own opset '{function.opset}'.")
    declared = tuple(read_variable(message) for message in function.inputs)
    message = function.block_specializations[function.opset]
    block = read_block(message, WeightFiles(file.parent))
    variables = {variable.name: variable for variable in declared}
    variables |= {output.name: output for operation in block.operations for output in operation.outputs}
    classifier = read_classifier(description, message)
    return Program(
        inputs=_inputs(description, declared),
        outputs=_outputs(description.output, {**_constant_variables(block.constants), **variables}, classifier),
        operations=block.operations,
        constants=block.constants,
        variables=variables,
        opset=function.opset,
        constant_types=block.constant_types,
        images=image_spaces(description.input),
        pictures=image_spaces(description.output),
        classifier=classifier,
        states=tuple(variable for variable in declared if variable.kind == "state"),
        function=name,
        functions=tuple(sorted(model.mlProgram.functions)),
    )


def _other_kind(kind: str) -> str:
    found = f"it is a Core ML model of the kind '{kind}'"
    if kind.startswith("neuralNetwork"):
        found += ", the form used before iOS 15"
    return (
        f"{found}; the reference executor runs ML programs ('mlProgram') only. Convert the original model again with"
        " coremltools.convert(..., convert_to='mlprogram', minimum_deployment_target=coremltools.target.iOS15) or a later"
        " target, or run it on macOS."
    )


def choose_function(model: Any, wanted: str = "") -> str:
    """Name of the function of an ML program that is meant.

    Args:
        model: A ``Model`` message.
        wanted: The name asked for; empty for the package's default.

    Raises:
        UsageError: There is none of that name.
        IntegrityError: The package says no default, or one it does not have.
    """
    names = sorted(model.mlProgram.functions)
    if wanted:
        if wanted not in names:
            raise UsageError(f"it has no function '{wanted}'; its functions are {', '.join(names)}.{nearest(wanted, names)}")
        return wanted
    default = str(model.description.defaultFunctionName) or (names[0] if len(names) == 1 else _MAIN)
    if default not in names:
        raise IntegrityError(f"its default function is '{default}', but its functions are {names}.")
    return default


def function_description(model: Any, function: str) -> Any:
    """What describes the inputs and outputs of one function: where there are several, each has its own."""
    for described in model.description.functions:
        if described.name == function:
            return described
    return model.description


def _inputs(description: Any, declared: tuple[Variable, ...]) -> tuple[TensorSpec, ...]:
    variables = {variable.name: variable for variable in declared}
    missing = [name for name, v in variables.items() if v.kind != "state" and name not in {f.name for f in description.input}]
    if missing:
        raise IntegrityError(f"its program takes '{missing[0]}', which the description does not name as an input.")
    return _features(description.input, variables)


def _constant_variables(constants: Mapping[str, Value]) -> dict[str, Variable]:
    """Constants as variables: an output may be one."""
    return {
        name: Variable(name, str(value.dtype), tuple(value.shape))
        for name, value in constants.items()
        if not isinstance(value, str)
    }


def _outputs(features: Iterable[Any], variables: Mapping[str, Variable], classifier: Classifier | None) -> tuple[TensorSpec, ...]:
    """Outputs as arrays: a classifier's dictionary as the values it is made of, its label left out."""
    if classifier is None:
        return _features(features, variables)
    found = []
    for feature in features:
        if feature.name == classifier.probabilities:
            scores = variables[classifier.scores]
            shape = tuple(size or 1 for size in scores.shape)
            found.append(TensorSpec.parse({"name": scores.name, "shape": shape, "dtype": scores.dtype}, source="class scores"))
        elif feature.name != classifier.label:
            found.append(_feature(feature, variables))
    return tuple(found)


def _features(features: Iterable[Any], variables: Mapping[str, Variable]) -> tuple[TensorSpec, ...]:
    return tuple(_feature(feature, variables) for feature in features)


def _feature(feature: Any, variables: Mapping[str, Variable]) -> TensorSpec:
    kind = feature.type.WhichOneof("Type")
    variable = variables.get(feature.name)
    if variable is None:
        raise IntegrityError(f"the description names '{feature.name}', which the program does not compute.")
    if kind == "imageType":
        return image_spec(feature)
    if kind != "multiArrayType":
        raise UnsupportedOpError(
            f"'{feature.name}' is a '{kind}'; only arrays and images can be run. Convert with ct.TensorType instead."
        )
    dtype = _FEATURE_DTYPES.get(feature.type.multiArrayType.dataType, "")
    if dtype not in get_args(DType):
        raise IntegrityError(f"'{feature.name}' has the unknown element type {feature.type.multiArrayType.dataType}.")
    shape = tuple(feature.type.multiArrayType.shape) or tuple(size or 1 for size in variable.shape)
    fields = {"name": feature.name, "shape": shape, "dtype": dtype, "flexible": _open_axes(feature.type.multiArrayType)}
    return TensorSpec.parse(fields, source=f"feature '{feature.name}'")


def _open_axes(array: Any) -> list[dict[str, Any]]:
    """Axes whose size the caller chooses: a range for each, or the shapes that are allowed."""
    kind = array.WhichOneof("ShapeFlexibility")
    if kind == "shapeRange":
        return open_axes([(size.lowerBound, size.upperBound) for size in array.shapeRange.sizeRanges])
    if kind == "enumeratedShapes":
        shapes = [array.shape, *(shape.shape for shape in array.enumeratedShapes.shapes)]
        return open_axes([list(sizes) for sizes in zip(*shapes, strict=True)])
    return []
