"""One fault in a real file, at a place drawn by chance: what a converter's bug, a bad merge or a flipped byte leaves behind.

============ ========================================================================================================
weight       one weight of a layer has the other sign
pad          a window starts one place later: one more value of padding before, one less behind, or the other way round
activation   another activation than the model's, none, or one where there is none
scale        quantized: the scale of one activation or of one layer's weights is not the contract's; float: a layer's weights
             have lost a common factor, or its bias is gone
============ ========================================================================================================

Files keep their shapes, load, and run. ``plant`` says which of the file's tensors is the first that the fault can change.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["KINDS", "Fault", "plant"]

KINDS = ("weight", "pad", "activation", "scale")
Choice = tuple[str, str, Callable[[], None]]
"""(tensor that changes, what is done in words, what does it)."""
_ACTIVATIONS = {
    "Relu": ("Identity", "LeakyRelu", "Abs"),
    "Clip": ("Relu",),
    "Sigmoid": ("Tanh",),
    "HardSwish": ("Relu", "HardSigmoid"),
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What was done to a file.

    Args:
        kind: One of :data:`KINDS`.
        tensor: The first tensor of the file that it changes.
        what: In words.
        path: The altered file.
    """

    kind: str
    tensor: str
    what: str
    path: Path


def plant(path: Path, destination: Path, *, target: str, kind: str, rng: np.random.Generator) -> Fault | None:
    """Write a copy of a file with one fault; None where it has no place for a fault of this kind.

    Args:
        path: The file.
        destination: Folder for the copy.
        target: ``"onnx"``, ``"tflite"`` or ``"coreml"``.
        kind: One of :data:`KINDS`.
        rng: Draws the place.
    """
    file: Any = {"onnx": _Onnx, "tflite": _TFLite, "coreml": _CoreML}[target](path, rng)
    choices: list[Choice] = getattr(file, kind)()
    if not choices:
        return None
    tensor, what, alter = choices[int(rng.integers(len(choices)))]
    alter()
    destination.mkdir(parents=True, exist_ok=True)
    return Fault(kind, tensor, what, file.write(destination))


def _flipped(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the larger weights with the other sign."""
    changed = values.copy().reshape(-1)
    large = np.argsort(-np.abs(changed.astype(np.float64)))[: max(1, changed.size // 10)]
    place = int(rng.choice(large))
    changed[place] = -changed[place] if changed.dtype.kind == "f" else max(-127, -int(changed[place]))
    return changed.reshape(values.shape)


class _Onnx:
    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        import onnx

        self.model = onnx.load(path)
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.producers = {name: node for node in self.model.graph.node for name in node.output}

    def write(self, folder: Path) -> Path:
        import onnx

        onnx.save(self.model, folder / "model.onnx")
        return folder / "model.onnx"

    def _layers(self) -> list[tuple[Any, Any, Any]]:
        """(node, its weight, the DequantizeLinear between, if any)."""
        found = []
        for node in self.model.graph.node:
            if node.op_type not in {"Conv", "Gemm", "MatMul"}:
                continue
            between = self.producers.get(node.input[1])
            name = between.input[0] if between is not None else node.input[1]
            if name in self.constants:
                found.append((node, self.constants[name], between))
        return found

    def _array(self, tensor: Any) -> np.ndarray:
        import onnx.numpy_helper

        return onnx.numpy_helper.to_array(tensor).copy()

    def _set(self, tensor: Any, values: np.ndarray) -> None:
        import onnx.numpy_helper

        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(self._array(tensor).dtype), tensor.name))

    def _own(self, name: str, values: np.ndarray) -> str:
        """A new constant, so that no other reader of the old one is changed."""
        import onnx.numpy_helper

        self.model.graph.initializer.append(onnx.numpy_helper.from_array(values, f"{name}/altered"))
        return f"{name}/altered"

    def weight(self) -> list[Choice]:
        def alter(tensor: Any) -> None:
            self._set(tensor, _flipped(self._array(tensor), self.rng))

        return [(n.output[0], f"sign of one weight in {w.name}", lambda w=w: alter(w)) for n, w, _ in self._layers()]

    def pad(self) -> list[Choice]:
        found = []
        for node in self.model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "pads" and node.op_type != "Pad" and any(attribute.ints):
                    found += [(node.output[0], f"pads of {node.name}", lambda ints=attribute.ints: self._shift(ints))]
        return found

    def _shift(self, ints: Any) -> None:
        half = len(ints) // 2
        axis = int(
            self.rng.choice(
                [at for at in range(half) if ints[at] and ints[at + half]]
                or [at for at in range(half) if ints[at] or ints[at + half]]
            )
        )
        by = 1 if ints[axis + half] else -1
        ints[axis], ints[axis + half] = ints[axis] + by, ints[axis + half] - by

    def activation(self) -> list[Choice]:
        found = []
        for node in self.model.graph.node:
            is_integer = (
                node.op_type == "Clip"
                and self.producers.get(node.input[0]) is not None
                and (self.producers[node.input[0]].op_type == "QuantizeLinear")
            )
            for other in () if is_integer else _ACTIVATIONS.get(node.op_type, ()):
                words = f"{node.op_type} {node.name} is {other}"
                found += [(node.output[0], words, lambda n=node, o=other: self._retype(n, o))]
        if not found:  # quantized: clamps are the ends of the grid, so one is put where none belongs
            for node, _, _ in self._layers():
                found.append((node.output[0], f"Relu after {node.name}", lambda n=node: self._insert_relu(n)))
        return found

    def _retype(self, node: Any, kind: str) -> None:
        node.op_type = kind
        del node.attribute[:]
        del node.input[1:]

    def _insert_relu(self, node: Any) -> None:
        import onnx.helper

        name = node.output[0]
        node.output[0] = f"{name}/before"
        at = list(self.model.graph.node).index(node)
        self.model.graph.node.insert(at + 1, onnx.helper.make_node("Relu", [node.output[0]], [name]))

    def scale(self) -> list[Choice]:
        found: list[Choice] = []
        for node, weight, between in self._layers():
            if between is not None:
                found.append((node.output[0], f"scales of {weight.name} are their mean", lambda b=between: self._mean_scale(b)))
            else:
                found.append(
                    (node.output[0], f"{weight.name} lost a factor of 2", lambda w=weight: self._set(w, self._array(w) / 2))
                )
                if len(node.input) > 2 and node.input[2] in self.constants and self._array(self.constants[node.input[2]]).any():
                    found.append((node.output[0], f"bias of {node.name} is gone", lambda n=node: self._no_bias(n)))
        for node in self.model.graph.node:
            if node.op_type == "QuantizeLinear":
                found += [(node.output[0], f"scale of {node.output[0]} is 1.25 times", lambda n=node: self._rescale(n))]
        return found

    def _mean_scale(self, between: Any) -> None:
        scale = self._array(self.constants[between.input[1]])
        between.input[1] = self._own(between.input[1], np.full_like(scale, scale.mean() if scale.size > 1 else scale * 2))

    def _no_bias(self, node: Any) -> None:
        bias = self._array(self.constants[node.input[2]])
        node.input[2] = self._own(node.input[2], np.zeros_like(bias))

    def _rescale(self, node: Any) -> None:
        node.input[1] = self._own(f"{node.output[0]}/scale", self._array(self.constants[node.input[1]]) * np.float32(1.25))


class _TFLite:
    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        from edgekit.converters.tflite_flatbuffer import Graph

        self.graph = Graph(path.read_bytes())

    def write(self, folder: Path) -> Path:
        (folder / "model.tflite").write_bytes(self.graph.to_bytes())
        return folder / "model.tflite"

    def _name(self, operator: Any) -> str:
        return self.graph.name(int(operator.outputs[0]))

    def _layers(self) -> list[tuple[Any, int]]:
        kinds = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
        found = [(operator, int(operator.inputs[1])) for operator in self.graph.operators if self.graph.kind(operator) in kinds]
        return [(operator, weight) for operator, weight in found if self.graph.constant(weight) is not None]

    def weight(self) -> list[Choice]:
        def alter(weight: int) -> None:
            self.graph.set_constant(weight, _flipped(self.graph.constant(weight), self.rng))

        return [(self._name(o), f"sign of one weight in {self.graph.name(w)}", lambda w=w: alter(w)) for o, w in self._layers()]

    def pad(self) -> list[Choice]:
        found = []
        for operator in self.graph.operators:
            if self.graph.kind(operator) in {"PAD", "PADV2"}:
                readers = self.graph.readers()[int(operator.outputs[0])]
                found.append((self._name(readers[0]), f"paddings of {self._name(operator)}", lambda o=operator: self._shift(o)))
        return found

    def _shift(self, operator: Any) -> None:
        pads = self.graph.constant(int(operator.inputs[1])).copy()
        axis = int(self.rng.choice(np.nonzero(pads.sum(1))[0]))
        by = 1 if pads[axis, 1] else -1
        pads[axis] += (by, -by)
        own = self.graph.add_constant(pads, scales=[])
        self.graph.redirect(int(operator.inputs[1]), own, operators=[operator])

    def activation(self) -> list[Choice]:
        names = {"NONE": 0, "RELU": 1, "RELU6": 3}
        found = []
        for operator in self.graph.operators:
            now = getattr(operator.builtinOptions, "fusedActivationFunction", None)
            for other, value in names.items():
                if now is not None and now != value:
                    words = f"activation of {self._name(operator)} is {other}"
                    found.append((self._name(operator), words, lambda o=operator, v=value: self._activate(o, v)))
        return found

    def _activate(self, operator: Any, value: int) -> None:
        operator.builtinOptions.fusedActivationFunction = value

    def scale(self) -> list[Choice]:
        found: list[Choice] = []
        for operator, weight in self._layers():
            grid = self.graph.scales(weight)
            if grid is not None:
                values = [float(grid[0].mean())] * grid[0].size if grid[0].size > 1 else [float(grid[0][0]) * 2]
                words = f"scales of {self.graph.name(weight)} are their mean"
                found.append((self._name(operator), words, lambda w=weight, v=values: self.graph.set_scales(w, v)))
            else:
                words = f"{self.graph.name(weight)} lost a factor of 2"
                found.append(
                    (self._name(operator), words, lambda w=weight: self.graph.set_constant(w, self.graph.constant(w) / 2))
                )
        moves = {"RESHAPE", "TRANSPOSE", "PAD", "CONCATENATION", "MAX_POOL_2D", "DEQUANTIZE"}  # these demand equal grids
        for operator in self.graph.operators:
            index = int(operator.outputs[0])
            grid = self.graph.scales(index)
            readers = [self.graph.kind(reader) for reader in self.graph.readers().get(index, [])]
            if grid is not None and grid[0].size == 1 and not moves & {self.graph.kind(operator), *readers}:
                values = [float(grid[0][0]) * 1.25]
                words = f"scale of {self._name(operator)} is 1.25 times"
                found.append((self._name(operator), words, lambda i=index, v=values: self.graph.set_scales(i, v)))
        return found


class _CoreML:
    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        from edgekit.runtimes.coreml.messages import model_messages
        from edgekit.runtimes.coreml.package import model_file, read_package

        self.path, self.program = path, read_package(path)
        self.model = model_messages().Model()
        self.file = model_file(path)
        self.model.ParseFromString(self.file.read_bytes())
        function = self.model.mlProgram.functions["main"]
        self.block = function.block_specializations[function.opset]
        self.blob = bytearray((self.file.parent / "weights" / "weight.bin").read_bytes())
        self.constants = {
            operation.outputs[0].name: operation for operation in self.block.operations if operation.type == "const"
        }
        self.producers = {output.name: operation for operation in self.block.operations for output in operation.outputs}

    def write(self, folder: Path) -> Path:
        package = folder / "model.mlpackage"
        shutil.copytree(self.path, package)
        place = package / self.file.relative_to(self.path)
        place.write_bytes(self.model.SerializeToString(deterministic=True))
        (place.parent / "weights" / "weight.bin").write_bytes(bytes(self.blob))
        return package

    def _bound(self, operation: Any, argument: str) -> str:
        return operation.inputs[argument].arguments[0].name if argument in operation.inputs else ""

    def _layers(self) -> list[tuple[Any, Any, np.ndarray]]:
        """(operation, the message that holds its weight, the weight as stored)."""
        found = []
        for operation in self.block.operations:
            if operation.type not in {"conv", "linear", "matmul"}:
                continue
            producer = self.producers.get(self._bound(operation, "weight") or self._bound(operation, "y"))
            if producer is None:
                continue
            message, values = self._stored(producer, "quantized_data" if producer.type.startswith("constexpr") else "val")
            if values is not None:
                found.append((operation, message, values))
        return found

    def _stored(self, producer: Any, attribute: str) -> tuple[Any, np.ndarray | None]:
        """An operation's constant and its values, from the weight file."""
        from edgekit.runtimes.coreml.blocks import read_value
        from edgekit.runtimes.coreml.weights import WeightFiles

        if attribute in producer.attributes:
            message = producer.attributes[attribute]
        elif attribute in producer.inputs and (name := self._bound(producer, attribute)) in self.constants:
            message = self.constants[name].attributes["val"]
        else:
            return None, None
        values = np.array(read_value(message, WeightFiles(self.file.parent)))
        return message, values if message.WhichOneof("value") == "blobFileValue" else None

    def _store(self, message: Any, values: np.ndarray) -> None:
        """Over the old values: the blob's header says where they begin."""
        header = message.blobFileValue.offset
        at = int(np.frombuffer(self.blob, np.uint64, 1, offset=header + 16)[0])
        data = values.tobytes()
        self.blob[at : at + len(data)] = data

    def weight(self) -> list[Choice]:
        return [
            (
                o.outputs[0].name,
                f"sign of one weight of {o.outputs[0].name}",
                lambda m=m, v=v: self._store(m, _flipped(v, self.rng)),
            )
            for o, m, v in self._layers()
        ]

    def pad(self) -> list[Choice]:
        found = []
        for operation in self.block.operations:
            name = self._bound(operation, "pad")
            values = self.program.constants.get(name)
            if operation.type in {"conv", "max_pool", "avg_pool"} and isinstance(values, np.ndarray) and values.any():
                words = f"pad of {operation.outputs[0].name}"
                found.append((operation.outputs[0].name, words, lambda o=operation, v=values: self._shift(o, v)))
        return found

    def _shift(self, operation: Any, values: np.ndarray) -> None:
        pads = values.reshape(-1, 2).astype(int)
        axis = int(self.rng.choice(np.nonzero(pads.sum(1))[0]))
        by = 1 if pads[axis, 1] else -1
        pads[axis] += (by, -by)
        self._own_constant(operation, "pad", "ints", pads.reshape(-1).tolist())
        for text in self._pad_types(operation):
            text.strings.values[:] = ["custom"]

    def _pad_types(self, operation: Any) -> list[Any]:
        name = self._bound(operation, "pad_type")
        if name not in self.constants:
            return []
        self._own_constant(operation, "pad_type", "strings", ["custom"])
        return []

    def _own_constant(self, operation: Any, argument: str, field: str, values: list[Any]) -> None:
        """A constant of its own for one argument, so that no other reader of the old one is changed."""
        old = self.constants[self._bound(operation, argument)]
        new = type(old)()
        new.CopyFrom(old)
        new.outputs[0].name = f"{operation.outputs[0].name}_{argument}_altered"
        if "name" in new.attributes:
            new.attributes["name"].immediateValue.tensor.strings.values[:] = [new.outputs[0].name]
        held = getattr(new.attributes["val"].immediateValue.tensor, field)
        if field == "bytes":
            held.values = values[0]
        else:
            held.values[:] = values
        operation.inputs[argument].arguments[0].name = new.outputs[0].name
        at = next(index for index, one in enumerate(self.block.operations) if one.outputs[0].name == operation.outputs[0].name)
        body = [type(one).FromString(one.SerializeToString()) for one in self.block.operations]
        body.insert(at, new)
        del self.block.operations[:]
        self.block.operations.extend(body)

    def activation(self) -> list[Choice]:
        others = {
            "relu": ("relu6", "abs", "identity"),
            "relu6": ("relu",),
            "clip": ("relu",),
            "sigmoid": ("tanh",),
            "tanh": ("sigmoid",),
        }
        found = []
        for operation in self.block.operations:
            for other in others.get(operation.type, ()):
                words = f"{operation.type} {operation.outputs[0].name} is {other}"
                found.append((operation.outputs[0].name, words, lambda o=operation, k=other: self._retype(o, k)))
        return found

    def _retype(self, operation: Any, kind: str) -> None:
        operation.type = kind
        for argument in list(operation.inputs):
            if argument != "x":
                del operation.inputs[argument]

    def scale(self) -> list[Choice]:
        found: list[Choice] = []
        for operation, message, values in self._layers():
            if values.dtype.kind == "f":
                words = f"weights of {operation.outputs[0].name} lost a factor of 2"
                found.append((operation.outputs[0].name, words, lambda m=message, v=values: self._store(m, v / v.dtype.type(2))))
        for operation in self.block.operations:
            name = self._bound(operation, "scale")
            values = self.program.constants.get(name)
            if operation.type == "quantize" and isinstance(values, np.ndarray) and values.size == 1:
                scaled = [float(values.reshape(-1)[0]) * 1.25]
                words = f"scale of {operation.outputs[0].name} is 1.25 times"
                found.append(
                    (operation.outputs[0].name, words, lambda o=operation, v=scaled: self._own_constant(o, "scale", "floats", v))
                )
        return found
