"""Numbers: the program's integers, every tensor of a file, a file's answers. All on the golden inputs."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.converters.tflite_edges import is_turned
from edgekit.core.artifact import ExportOptions
from edgekit.core.errors import UnsupportedOpError
from edgekit.core.tensors import dequantize, quantize

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array, TensorSpec

__all__ = ["Evidence", "answer_golden", "program_integers", "program_orders"]


_DOUBTFUL = 0.5
"""Relative energy of the difference from which an axis order is doubted."""
_HIGHEST_RANK = 5


def program_orders(shape: Sequence[int], wanted: Sequence[int]) -> list[bool]:
    """Axis orders in which a file's tensor can hold a program's value: True for channels last, False for the program's own.

    Sizes of 1 do not count (1-D layers have height 1 in a file). Only rank 4 and 5 are ever stored channels last.

    >>> program_orders((1, 1, 50, 16), (1, 16, 50)), program_orders((1, 8, 8, 8), (1, 8, 8, 8))
    ([True], [True, False])
    """
    stored = [size for size in shape if size != 1]
    last = [size for size in (wanted[0], *wanted[2:], wanted[1]) if size != 1] if len(wanted) > 2 else []
    orders = [True] if len(shape) in {4, 5} and len(wanted) > 2 and stored == last else []
    return [*orders, False] if stored == [size for size in wanted if size != 1] else orders


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Integers of the first golden sample, which tell apart tensors that look alike.

    Args:
        expected: Activation entry -> the program's integers.
        found: Tensor index -> the file's values, by TFLite's own kernels.
    """

    expected: Mapping[str, Array]
    found: Mapping[int, Array]

    @classmethod
    def collect(
        cls, data: bytes, compressed: Compressed, expected: Mapping[str, Array], *, options: ExportOptions | None = None
    ) -> Evidence:
        """Run the file ``data``, exported with ``options``, once, keeping every tensor."""
        choices = options or ExportOptions()
        interpreter = _interpreter(data, keep_all=True)
        for details, spec in zip(interpreter.get_input_details(), compressed.record.inputs, strict=True):
            value = compressed.golden.inputs[spec.name][0]
            interpreter.set_tensor(details["index"], _as_stored(value, details, is_turned=is_turned(spec, choices)))
        interpreter.invoke()
        found: dict[int, Array] = {}
        for details in interpreter.get_tensor_details():
            try:
                found[int(details["index"])] = interpreter.get_tensor(details["index"])
            except ValueError:  # a tensor without data: an optional one, or scratch space
                continue
        return cls(expected, found)

    def distance(self, entry: TensorQuantization, index: int, *, channels_last: bool) -> float:
        """Energy of the difference over the energy of the program's value; 0 where nothing is known of the tensor."""
        rank = len(entry.shape)
        return self._distance(entry, index, (0, *range(2, rank), 1) if channels_last else tuple(range(rank)))

    def is_reordered(self, entry: TensorQuantization, index: int, *, channels_last: bool) -> bool:
        """Whether a tensor plainly holds the program's value in another axis order of the same sizes."""
        distance = self.distance(entry, index, channels_last=channels_last)
        if distance < _DOUBTFUL or len(entry.shape) > _HIGHEST_RANK:
            return False
        stored = [size for size in self.found[index].shape if size != 1]
        orders = itertools.permutations(range(len(entry.shape)))
        fitting = [order for order in orders if [entry.shape[axis] for axis in order if entry.shape[axis] != 1] == stored]
        return min((self._distance(entry, index, order) for order in fitting), default=distance) < distance / 4

    def _distance(self, entry: TensorQuantization, index: int, order: Sequence[int]) -> float:
        import numpy as np

        if index not in self.found:
            return 0.0
        wanted = (self.expected[entry.name].astype(np.float64) - entry.zero_point[0]).transpose(order)
        noise = self.found[index].astype(np.float64).reshape(wanted.shape) - entry.zero_point[0] - wanted
        return float((noise**2).sum() / ((wanted**2).sum() + wanted.size))


def program_integers(compressed: Compressed) -> dict[str, Array]:
    """Integers of every activation entry for the first golden sample."""
    import torch

    names = {entry.node: entry.name for entry in compressed.contract.activations}
    found: dict[str, Array] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if n.name in names:
                found[names[n.name]] = result.numpy()
            return result

    module: Any = compressed.program.module(check_guards=False)
    with torch.no_grad():
        Recorder(module).run(*(torch.from_numpy(array) for array in _sample(compressed)), enable_io_processing=False)
    return found


def answer_golden(data: bytes, compressed: Compressed, *, options: ExportOptions | None = None) -> dict[str, Array]:
    """The file's outputs for all golden inputs, by the kernels that ship: output name -> ``[S, *shape]``, real values.

    Args:
        data: The file.
        compressed: What it was made from.
        options: What it was made with.
    """
    import numpy as np

    choices, interpreter = options or ExportOptions(), _interpreter(data)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    rows: dict[str, list[Array]] = {spec.name: [] for spec in compressed.record.outputs}
    for at in range(len(next(iter(compressed.golden.inputs.values())))):
        for spec, details in zip(compressed.record.inputs, inputs, strict=True):
            value = compressed.golden.inputs[spec.name][at]
            interpreter.set_tensor(details["index"], _as_stored(value, details, is_turned=is_turned(spec, choices)))
        interpreter.invoke()
        for spec, details in zip(compressed.record.outputs, outputs, strict=True):
            value = _as_real(interpreter.get_tensor(details["index"]), details, spec)
            rows[spec.name].append(value.transpose(0, 3, 1, 2) if is_turned(spec, choices) else value)
    return {name: np.stack(values) for name, values in rows.items()}


def _sample(compressed: Compressed) -> list[Array]:
    return [compressed.golden.inputs[spec.name][0] for spec in compressed.record.inputs]


def _interpreter(data: bytes, *, keep_all: bool = False) -> Any:
    module = importlib.import_module("ai_edge_litert.interpreter")
    kinds = module.OpResolverType
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LiteRT warns that keeping all tensors is for debugging: it is
            made = module.Interpreter(
                model_content=data,
                experimental_preserve_all_tensors=keep_all,
                experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep_all else kinds.AUTO,
            )
        made.allocate_tensors()
    except (ValueError, RuntimeError) as reason:
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
        raise UnsupportedOpError(
            f"LiteRT converted the model, but its own runtime refuses the result: {first} Replace that operator in the model,"
            " or leave out the target tflite."
        ) from reason
    return made


def _as_stored(value: Array, details: Mapping[str, Any], *, is_turned: bool) -> Array:
    import numpy as np

    value = value.transpose(0, 2, 3, 1) if is_turned else value
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"])
    if value.dtype.kind == "f" and dtype in {np.dtype(np.int8), np.dtype(np.int16)}:
        ends = np.iinfo(dtype)
        return quantize(value, scale=scale, zero_point=zero_point, minimum=int(ends.min), maximum=int(ends.max), dtype=str(dtype))
    return value.astype(dtype)


def _as_real(value: Array, details: Mapping[str, Any], spec: TensorSpec) -> Array:
    scale, zero_point = details["quantization"]
    is_integer = str(value.dtype) in {"int8", "int16"} and spec.dtype == "float32"
    return dequantize(value, scale=scale, zero_point=zero_point) if is_integer else value
