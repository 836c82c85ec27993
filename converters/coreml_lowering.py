"""What coremltools cannot take, or takes wrongly without a word, rewritten before it sees the program.

Operators it has no function for are decomposed by torch's own rules until it has one for each that is left. Arguments
it needs written out are filled in from the schema; keyword arguments it overlooks (``alpha`` of additions and
subtractions, ``approximate`` of gelu) are made visible, since the result would otherwise be wrong without any error.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from edgekit.converters.coreml_operators import register, used
from edgekit.converters.coreml_recurrent import is_plain
from edgekit.converters.rewrites import carry_out
from edgekit.core.errors import ConversionError, EdgekitError, UnsupportedOpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from edgekit.core.artifact import RewriteRecord

__all__ = ["layer_of", "lower", "naming_failures"]

_TARGET = "coreml"
_ROUNDS = 4
_SCALED = {"aten.add.Tensor": 1, "aten.sub.Tensor": 1, "aten.rsub.Scalar": 0, "aten.rsub.Tensor": 0}
"""Operators with a keyword ``alpha``, and the argument it multiplies."""

_WINDOWS = {"aten.max_pool1d.default": 2, "aten.max_pool2d.default": 2, "aten.max_pool3d.default": 2}
_DECOMPOSED = {
    "aten.rms_norm.default", "aten.cosine_similarity.default", "aten.hardshrink.default", "aten.nan_to_num.default",
}  # fmt: skip
"""Known to coremltools, but only in forms ``torch.export`` does not write."""
_POSITIONS = {"aten.slice.Tensor", "aten.slice_scatter.default", "aten.narrow.default"}
"""Their integers are positions, cut off at the length of the axis."""
_LIMITS = {2**63 - 1, -(2**63), 2**63 - 2, -(2**63) + 1}
_RECURRENT = {"aten.lstm.input", "aten.rnn_tanh.input", "aten.rnn_relu.input"}


def lower(program: ExportedProgram) -> tuple[ExportedProgram, tuple[RewriteRecord, ...]]:
    """The program in operators coremltools has functions for, and what was done beyond torch's own decompositions.

    Args:
        program: Any exported program; it is left as it is.

    Raises:
        UnsupportedOpError: Names each operator that is left over, its layer, and what to do.
    """
    import torch

    register()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own deprecated pytree calls while it retraces
        program, done = carry_out(program.run_decompositions({}), _TARGET)
        for _ in range(_ROUNDS):
            unknown = {node.target for node in _unknown(program)}
            rules: Any = torch.export.default_decompositions() if unknown else {}  # making the table takes a while
            wanted: dict[Any, Any] = {target: rules[target] for target in unknown if target in rules}
            if not wanted:
                break
            program, more = carry_out(program.run_decompositions(wanted), _TARGET)
            done = (*done, *more)
    _write_out(program.graph_module)
    _take_integers(program)
    _refuse_wide_integers(program)
    _refuse(_unknown(program))
    return program, (*done, *used(_calls(program)))


def layer_of(node: Node) -> str:
    """Module path of the layer a node belongs to; ``"(top level)"`` where it belongs to none."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if path]
    return paths[-1].replace("L['self'].", "") if paths else "(top level)"


def _unknown(program: ExportedProgram) -> list[Node]:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    return [
        node
        for node in _calls(program)
        if str(node.target) in _DECOMPOSED
        or (str(node.target) in _RECURRENT and not is_plain(node))
        or _TORCH_OPS_REGISTRY.get_func(_kind(node)) is None
    ]


def _calls(program: ExportedProgram) -> list[Node]:
    return [node for node in program.graph_module.graph.nodes if node.op == "call_function"]


def _kind(node: Node) -> str:
    """The operator's name as coremltools looks it up."""
    target: Any = node.target
    return str(target.name()) if hasattr(target, "overloadpacket") else str(getattr(target, "__name__", target))


def _refuse_wide_integers(program: ExportedProgram) -> None:
    """Core ML computes with 32 bits, and coremltools cuts longer integers off without a word.

    The very largest and smallest stand for "no limit" wherever they occur, and are left alone.
    """
    for node in _calls(program):
        wide = [value for value in node.args if _is_wide(value)] if str(node.target) not in _POSITIONS else []
        if wide:
            raise ConversionError(
                f"'{node.target}' in layer '{layer_of(node)}' computes with {wide[0]}, which does not fit the 32 bits that"
                " integers have in Core ML. Compute with smaller integers or floats, or export to other targets only (--target)."
            )
    for name, value in {**program.state_dict, **program.constants}.items():
        if str(getattr(value, "dtype", "")) == "torch.int64" and any(_is_wide(int(number)) for number in _extremes(value)):
            raise ConversionError(
                f"The constant '{name}' holds integers that do not fit the 32 bits that integers have in Core ML. Use smaller"
                " integers or floats, or export to other targets only (--target)."
            )


def _extremes(value: Any) -> list[Any]:
    """The smallest and the largest number of a tensor."""
    return [value.min(), value.max()] if value.numel() else []


def _is_wide(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value not in _LIMITS and not -(2**31) <= value < 2**31


def _refuse(nodes: list[Node]) -> None:
    if not nodes:
        return
    found = dict.fromkeys(f"'{node.target}' in layer '{layer_of(node)}'" for node in nodes)
    raise UnsupportedOpError(
        f"Core ML cannot run {', '.join(found)}: coremltools has no conversion for it. Write the layer with other operators,"
        " or export to other targets only (--target)."
    )


def _write_out(module: GraphModule) -> None:
    """Make arguments explicit that coremltools would miss."""
    for node in list(module.graph.nodes):
        name = str(node.target)
        if name in _SCALED and node.kwargs.get("alpha", 1) != 1:
            _scale(module, node, _SCALED[name])
        elif name in _WINDOWS and len(node.args) == _WINDOWS[name]:
            node.args = (*node.args, node.args[1])  # the stride is the window
    module.graph.lint()
    module.recompile()


def _take_integers(program: ExportedProgram) -> None:
    """Boolean inputs become integers that are compared with 0: a Core ML model cannot be given booleans."""
    import torch

    graph, names = program.graph_module.graph, set(program.graph_signature.user_inputs)
    given = [node for node in graph.nodes if node.op == "placeholder"]
    first = next(node for node in graph.nodes if node.op != "placeholder")
    for node in given:
        value = node.meta.get("val")
        if node.name in names and isinstance(value, torch.Tensor) and value.dtype == torch.bool:
            node.meta["val"] = value.to(torch.int32)
            with graph.inserting_before(first):
                truth = graph.call_function(torch.ops.aten.ne.Scalar, (node, 0))
            truth.meta["val"] = value
            node.replace_all_uses_with(truth, delete_user_cb=lambda user, truth=truth: user is not truth)
    program.graph_module.recompile()


def _scale(module: GraphModule, node: Node, position: int) -> None:
    """Multiply one argument by ``alpha`` in a step of its own."""
    import torch

    operand, alpha = node.args[position], node.kwargs["alpha"]
    scaled: Any
    if isinstance(operand, torch.fx.Node):
        with module.graph.inserting_before(node):
            scaled = module.graph.call_function(torch.ops.aten.mul.Tensor, (operand, alpha))
        scaled.meta = dict(operand.meta)
    else:
        scaled = operand * alpha  # type: ignore[operator]  # a number
    node.args = (*node.args[:position], scaled, *node.args[position + 1 :])
    node.kwargs = {}


@contextlib.contextmanager
def naming_failures(program: ExportedProgram) -> Iterator[None]:
    """Turn whatever coremltools raises into a :class:`ConversionError` that names the operator and its layer.

    coremltools raises plain ``ValueError`` and the like from deep inside; which node it was converting is only known
    to the function that converts one node, which is watched while this context is open.
    """
    from coremltools.converters.mil.frontend.torch import ops

    nodes = {node.name: node for node in program.graph_module.graph.nodes}
    convert, current = ops.convert_single_node, [""]

    def watched(context: Any, node: Any) -> Any:
        current[0] = node.name
        result = convert(context, node)
        current[0] = ""
        return result

    ops.convert_single_node = watched
    try:
        yield
    except EdgekitError:
        raise
    except Exception as reason:
        traceback.clear_frames(reason.__traceback__)  # frees the half-made package, which would complain later
        node = nodes.get(current[0])
        what = f"'{node.target}' in layer '{layer_of(node)}'" if node is not None else "the program"
        raise ConversionError(
            f"coremltools could not convert {what}: {type(reason).__name__}: {reason}. Write the layer with other operators,"
            " exclude it from quantization if it is quantized, or export to other targets only (--target)."
        ) from reason
    finally:
        ops.convert_single_node = convert
