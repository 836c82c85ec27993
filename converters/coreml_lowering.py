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

from edgekit.core.errors import ConversionError, EdgekitError, UnsupportedOpError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

__all__ = ["layer_of", "lower", "naming_failures", "register_operators"]

_ROUNDS = 4
_SCALED = {"aten.add.Tensor": 1, "aten.sub.Tensor": 1, "aten.rsub.Scalar": 0, "aten.rsub.Tensor": 0}
"""Operators with a keyword ``alpha``, and the argument it multiplies."""

_WINDOWS = {"aten.max_pool1d.default": 2, "aten.max_pool2d.default": 2, "aten.max_pool3d.default": 2}
_DECOMPOSED = {"aten.rms_norm.default", "aten.cosine_similarity.default", "aten.hardshrink.default"}
"""Known to coremltools, but only in forms ``torch.export`` does not write."""


def lower(program: ExportedProgram) -> ExportedProgram:
    """The program in operators coremltools has functions for.

    Args:
        program: Any exported program; it is left as it is.

    Raises:
        UnsupportedOpError: Names each operator that is left over, its layer, and what to do.
    """
    import torch

    register_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own deprecated pytree calls while it retraces
        program = program.run_decompositions({})
        for _ in range(_ROUNDS):
            unknown = {node.target for node in _unknown(program)}
            rules: Any = torch.export.default_decompositions() if unknown else {}  # making the table takes a while
            wanted: dict[Any, Any] = {target: rules[target] for target in unknown if target in rules}
            if not wanted:
                break
            program = program.run_decompositions(wanted)
    _write_out(program.graph_module)
    _refuse(_unknown(program))
    return program


def layer_of(node: Node) -> str:
    """Module path of the layer a node belongs to; ``"(top level)"`` where it belongs to none."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if path]
    return paths[-1].replace("L['self'].", "") if paths else "(top level)"


def _unknown(program: ExportedProgram) -> list[Node]:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    nodes = [node for node in program.graph_module.graph.nodes if node.op == "call_function"]
    return [node for node in nodes if str(node.target) in _DECOMPOSED or _TORCH_OPS_REGISTRY.get_func(_kind(node)) is None]


def _kind(node: Node) -> str:
    """The operator's name as coremltools looks it up."""
    target: Any = node.target
    return str(target.name()) if hasattr(target, "overloadpacket") else str(getattr(target, "__name__", target))


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


def register_operators() -> None:
    """Teach coremltools the few operators that decompose no further, and gelu's ``approximate``; once a process."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY, register_torch_op

    for function in (_alias, _trunc, _gelu):
        name = function.__name__.removeprefix("_")
        known = _TORCH_OPS_REGISTRY.name_to_func_mapping.get(name)
        if known is None or (name == "gelu" and known is not function):
            register: Callable[..., Any] = register_torch_op(torch_alias=[name], override=True)
            register(function)


def _inputs(context: Any, node: Any) -> list[Any]:
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    return list(_get_inputs(context, node))


def _operations() -> Any:
    """MIL's operations as functions that add themselves to the program being built."""
    from coremltools.converters.mil import Builder

    return Builder


def _alias(context: Any, node: Any) -> None:
    context.add(_operations().identity(x=_inputs(context, node)[0], name=node.name))


def _trunc(context: Any, node: Any) -> None:
    x, mil = _inputs(context, node)[0], _operations()
    context.add(mil.mul(x=mil.sign(x=x), y=mil.floor(x=mil.abs(x=x)), name=node.name))


def _gelu(context: Any, node: Any) -> None:
    (approximate,) = (node.kwinputs or {}).get("approximate", ("none",))
    mode = "TANH_APPROXIMATION" if approximate == "tanh" else "EXACT"
    context.add(_operations().gelu(x=_inputs(context, node)[0], mode=mode, name=node.name))
