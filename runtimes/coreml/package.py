"""Reading an ``.mlpackage``: a folder with a manifest, a model file, and weight files beside it.

Nothing in the package is trusted: paths must stay inside, and whatever does not parse or fit is an
:class:`~edgekit.core.errors.IntegrityError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.core.tensors import DType, TensorSpec
from edgekit.runtimes.coreml.features import CLASSIFY, image_inputs, image_spec, read_classifier
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.program import Literal, Operation, Program, Variable
from edgekit.runtimes.coreml.weights import DTYPES, WeightFiles, decode_value

if TYPE_CHECKING:
    from edgekit.runtimes.coreml.program import Classifier, Value

__all__ = ["model_file", "read_package"]

_FEATURE_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131080: "int8", 131104: "int32"}
"""``ArrayFeatureType.ArrayDataType`` of FeatureTypes.proto: 0x10000 marks floats, 0x20000 integers, plus the bits."""

_MAIN = "main"


def read_package(path: Path) -> Program:
    """Read the main function of an ML program.

    Args:
        path: The ``.mlpackage`` folder.

    Raises:
        IntegrityError: The package is incomplete, damaged, or points outside itself.
        UnsupportedOpError: It is a Core ML model of another kind, or has inputs that are not arrays.
    """
    file = model_file(path)
    try:
        model = model_messages().Model()
        model.ParseFromString(file.read_bytes())
        return _read_model(model, file)
    except (IntegrityError, UnsupportedOpError) as reason:
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
    except (ValueError, KeyError, TypeError) as reason:
        raise IntegrityError(f"{manifest} is damaged: it names no root model ({type(reason).__name__}: {reason}).") from reason
    if not found.resolve().is_relative_to(path.resolve()):
        raise IntegrityError(f"{manifest} names a model outside the package: {relative}. It is not to be trusted.")
    if not found.is_file():
        raise IntegrityError(f"{manifest} names the model {relative}, but {found} does not exist. The package is incomplete.")
    return found


def _read_model(model: Any, file: Path) -> Program:
    kind = model.WhichOneof("Type")
    if kind is None:
        raise IntegrityError(f"{file.name} is empty or damaged: it holds no model.")
    if kind != "mlProgram":
        raise UnsupportedOpError(f"it is a '{kind}' model; only an ML program can be run. Convert with convert_to='mlprogram'.")
    functions = model.mlProgram.functions
    if _MAIN not in functions:
        raise UnsupportedOpError(f"its functions are {sorted(functions)}; expected one called '{_MAIN}'.")
    function = functions[_MAIN]
    if function.opset not in function.block_specializations:
        raise IntegrityError(f"it has no block for its own opset '{function.opset}'.")
    inputs = tuple(_variable(declared) for declared in function.inputs)
    block = function.block_specializations[function.opset]
    operations, constants, types = _read_block(block, WeightFiles(file.parent))
    variables = {variable.name: variable for variable in inputs}
    variables |= {output.name: output for operation in operations for output in operation.outputs}
    classifier = read_classifier(model.description, block)
    return Program(
        inputs=_features(model.description.input, variables),
        outputs=_outputs(model.description.output, {**_constant_variables(constants), **variables}, classifier),
        operations=operations,
        constants=constants,
        variables=variables,
        opset=function.opset,
        constant_types=types,
        images=image_inputs(model.description.input),
        classifier=classifier,
    )


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
        bounds = [(int(size.lowerBound), int(size.upperBound)) for size in array.shapeRange.sizeRanges]
        return [{"axis": at, "minimum": low, "maximum": high} for at, (low, high) in enumerate(bounds) if low != high]
    if kind == "enumeratedShapes":
        columns = [sorted(set(sizes)) for sizes in zip(*(shape.shape for shape in array.enumeratedShapes.shapes), strict=True)]
        return [
            {"axis": at, "minimum": sizes[0], "maximum": sizes[-1], "sizes": sizes}
            for at, sizes in enumerate(columns)
            if len(sizes) > 1
        ]
    return []


def _read_block(block: Any, weights: WeightFiles) -> tuple[tuple[Operation, ...], dict[str, Value], dict[str, str]]:
    constants: dict[str, Value] = {}
    types: dict[str, str] = {}
    operations: list[Operation] = []
    for message in block.operations:
        if message.type == CLASSIFY:
            continue
        outputs = tuple(_variable(declared) for declared in message.outputs)
        if message.type == "const":
            constants[outputs[0].name] = _value(message.attributes["val"], weights)
            types[outputs[0].name] = outputs[0].dtype
            continue
        name = str(_value(message.attributes["name"], weights)) if "name" in message.attributes else outputs[0].name
        if message.blocks:
            raise UnsupportedOpError(
                f"operation '{name}' ({message.type}) is control flow, which edgekit's Core ML executor does not run."
                " Export the model with its branches and loops unrolled."
            )
        # constexpr operations up to iOS 17 keep their parameters as attributes, later ones as inputs
        inputs: dict[str, tuple[str | Literal, ...]] = {
            key: (_literal(value, weights),) for key, value in message.attributes.items() if key != "name"
        }
        inputs |= {argument: _bindings(bound, weights) for argument, bound in message.inputs.items()}
        operations.append(Operation(type=message.type, name=name, inputs=inputs, outputs=outputs))
    return tuple(operations), constants, types


def _bindings(argument: Any, weights: WeightFiles) -> tuple[str | Literal, ...]:
    return tuple(
        binding.name if binding.WhichOneof("binding") == "name" else _literal(binding.value, weights)
        for binding in argument.arguments
    )


def _literal(message: Any, weights: WeightFiles) -> Literal:
    return Literal(_value(message, weights), _tensor_type(message.type)[0])


def _value(message: Any, weights: WeightFiles) -> Value:
    dtype, shape = _tensor_type(message.type)
    static = tuple(size for size in shape if size is not None)
    if len(static) != len(shape):
        raise IntegrityError("a constant has a shape that is not static.")
    return decode_value(message, dtype=dtype, shape=static, weights=weights)


def _variable(declared: Any) -> Variable:
    dtype, shape = _tensor_type(declared.type)
    return Variable(name=declared.name, dtype=dtype, shape=shape)


def _tensor_type(message: Any) -> tuple[str, tuple[int | None, ...]]:
    kind = message.WhichOneof("type")
    if kind != "tensorType":
        raise UnsupportedOpError(f"the program holds a value of type '{kind}', which edgekit's Core ML executor does not run.")
    tensor = message.tensorType
    enumeration = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type
    name = enumeration.values_by_number[tensor.dataType].name
    if name not in DTYPES:
        raise UnsupportedOpError(f"the program holds a tensor of type {name}, which edgekit's Core ML executor does not know.")
    sizes = (d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
    return DTYPES[name], tuple(sizes)
