"""Complex numbers as pairs of real ones. Either every complex value of a program is replaced, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edgekit.converters.rewrites.fourier import TRANSFORMS, Complex, inverse_short_time, short_time
from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]

Rule = Callable[..., Any]
"""Called with the node's arguments, :class:`Complex` for complex nodes; returns a Complex or a real tensor."""

_BOTH_ALIKE = {
    "alias", "cat", "clone", "constant_pad_nd", "contiguous", "cumsum", "detach", "detach_", "diff", "expand", "expand_as",
    "flatten", "flip", "gather", "index", "index_select", "lift_fresh_copy", "mT", "mean", "movedim", "narrow", "neg",
    "numpy_T", "pad", "permute", "repeat", "reshape", "resolve_conj", "resolve_neg", "roll", "select", "select_scatter",
    "slice", "slice_scatter", "squeeze", "stack", "sub", "sum", "t", "transpose", "unflatten", "unsqueeze", "view", "where",
    "zeros_like",
}  # fmt: skip
"""Operators that treat the real and the imaginary part alike."""
_PRODUCTS = {"mul", "matmul", "bmm", "mm", "einsum", "outer"}


def _replace_complex_numbers(edit: ProgramEdit) -> int:
    """Every node that makes or reads complex values, or none: where one has no rule, the program stays as it is."""
    found = [node for node in edit.graph.nodes if _is_complex(node) or any(map(_is_complex, node.all_input_nodes))]
    values = {node: edit.value_of(node) for node in found if node.op == "placeholder"}
    calls = [node for node in found if node.op == "call_function"]
    if not found or any(_rule(node) is None for node in calls) or any(map(_is_complex, edit.results())):
        return 0
    if any(value is None for value in values.values()):
        return 0
    pairs: dict[Node, Complex] = {}
    for node, value in values.items():
        if value is not None:
            real, imaginary = value.real.contiguous(), value.imag.contiguous()
            pairs[node] = Complex(edit.constant(real, name="real"), edit.constant(imaginary, name="imaginary"))  # type: ignore[arg-type]
    for node in calls:
        _replace(edit, node, pairs)
    for node in reversed(calls):
        edit.graph.erase_node(node)
    return len(calls)


def _is_complex(node: Node) -> bool:
    value: Any = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()


def _replace(edit: ProgramEdit, node: Node, pairs: dict[Node, Complex]) -> None:
    """Compute a node's value from real tensors; readers of a real result read the new one."""
    rule = _rule(node)
    numbers = {source: edit.value_of(source) for source in node.all_input_nodes if _is_window(node, source)}
    window = {source: value for source, value in numbers.items() if value is not None}
    sources = [source for source in node.all_input_nodes if source not in window]
    parts: list[Any] = [pairs.get(source, source) for source in sources]

    def build(*values: Any) -> Any:
        known: dict[Node, Any] = dict(window)
        for source, value in zip(sources, values, strict=True):
            known[source] = Complex(*value) if source in pairs else value
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
        result = rule(*args, **kwargs)  # type: ignore[misc]
        return list(result) if isinstance(result, Complex) else result

    made = edit.compute(node, build, *(list(part) if isinstance(part, Complex) else part for part in parts))
    if isinstance(made, list):
        pairs[node] = Complex(*made)
        return
    node.replace_all_uses_with(made)


def _is_window(node: Node, source: Node) -> bool:
    """Whether a transform needs this argument as numbers."""
    return _name(node) in {"stft", "istft"} and not _is_complex(source) and source is not node.args[0]


def _name(node: Node) -> str:
    return str(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))


def _rule(node: Node) -> Rule | None:
    name = _name(node)
    if name in _PRODUCTS:
        return lambda *args, **kwargs: _product(node.target, args, kwargs)
    if name in _BOTH_ALIKE:
        return lambda *args, **kwargs: _apart(node.target, args, kwargs)
    return _RULES.get(name)


def _apart(operator: Any, args: Any, kwargs: Any) -> Complex:
    """The operator on the real parts and on the imaginary parts; a real operand has an imaginary part of zero."""
    is_sum = str(operator).split(".")[1] in {"sub", "cat", "stack", "where", "slice_scatter", "select_scatter"}

    def part(value: Any, which: int) -> Any:
        if isinstance(value, Complex):
            return value[which]
        if type(value) in {list, tuple}:
            return [part(one, which) for one in value]
        if is_sum and which and isinstance(value, torch.Tensor) and value.is_floating_point():
            return torch.zeros_like(value)
        return 0 if is_sum and which and isinstance(value, float) else value

    found = [operator(*part(args, which), **{**kwargs, **_real_type(kwargs)}) for which in (0, 1)]
    return Complex(*found)


def _real_type(kwargs: Any) -> dict[str, Any]:
    return {"dtype": torch.float32} if getattr(kwargs.get("dtype"), "is_complex", False) else {}


def _product(operator: Any, args: Any, kwargs: Any) -> Complex:
    """``(a + bi)(c + di)`` of whatever product; a real factor multiplies both parts."""
    places = [place for place, value in enumerate(args) if not isinstance(value, str)]
    operands: list[Any] = list(args[places[0]]) if isinstance(args[places[0]], list) else [args[place] for place in places[:2]]

    def call(left: Any, right: Any) -> Any:
        rest = args[places[0] + 1 :] if isinstance(args[places[0]], list) else args[places[0] + 2 :]
        pair = ([left, right],) if isinstance(args[places[0]], list) else (left, right)
        return operator(*args[: places[0]], *pair, *rest, **kwargs)

    if len(operands) != 2:
        raise TypeError(f"A complex product of {len(operands)} operands.")
    left, right = operands
    if not isinstance(left, Complex):
        return Complex(call(left, right.real), call(left, right.imaginary))
    if isinstance(right, complex):
        right = Complex(right.real, right.imag)  # type: ignore[arg-type]
    if not isinstance(right, Complex):
        return Complex(call(left.real, right), call(left.imaginary, right))
    return Complex(
        call(left.real, right.real) - call(left.imaginary, right.imaginary),
        call(left.real, right.imaginary) + call(left.imaginary, right.real),
    )


def _add(left: Any, right: Any, *, alpha: float = 1) -> Complex:
    (a, b), (c, d) = _both(left), _both(right)
    return Complex(a + alpha * c if alpha != 1 else a + c, _plus(b, d if alpha == 1 or d is None else alpha * d))


def _both(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part; None for an imaginary part of zero."""
    if isinstance(value, Complex):
        return value.real, value.imaginary
    return (value.real, value.imag) if isinstance(value, complex) else (value, None)


def _plus(left: Any, right: Any) -> Any:
    if left is None or right is None:
        return right if left is None else left
    return left + right


def _divide(left: Any, right: Any) -> Complex:
    if isinstance(right, complex):
        return _product(torch.mul, (left, 1 / right), {})
    if not isinstance(right, Complex):
        return Complex(left.real / right, left.imaginary / right)
    size = right.real.square() + right.imaginary.square()
    a, b = left if isinstance(left, Complex) else (left, 0.0)
    real = a * right.real + b * right.imaginary
    return Complex(real / size, (b * right.real - a * right.imaginary) / size)


def _absolute(value: Complex) -> torch.Tensor:
    return (value.real.square() + value.imaginary.square()).sqrt()


def _power(value: Any, exponent: Any) -> Complex:
    if exponent != 2:
        raise TypeError(f"A complex number to the power of {exponent}.")
    return Complex(value.real.square() - value.imaginary.square(), 2 * value.real * value.imaginary)


def _exponential(value: Complex) -> Complex:
    size = value.real.exp()
    return Complex(size * value.imaginary.cos(), size * value.imaginary.sin())


def _convert(value: Any, *args: Any, **kwargs: Any) -> Any:
    """To a complex type, or to a real one, which drops the imaginary part."""
    dtype = kwargs.get("dtype", next((one for one in args if isinstance(one, torch.dtype)), None))
    if isinstance(value, Complex):
        return value if dtype is None or dtype.is_complex else value.real.to(dtype)
    return Complex(value, torch.zeros_like(value))


def _zeros(size: Any, **kwargs: Any) -> Complex:
    del kwargs
    return Complex(torch.zeros(size), torch.zeros(size))


_RULES: dict[str, Rule] = {
    **TRANSFORMS,
    "stft": short_time,
    "istft": inverse_short_time,
    "complex": Complex,
    "polar": lambda size, angle: Complex(size * angle.cos(), size * angle.sin()),
    "view_as_complex": lambda value: Complex(value[..., 0], value[..., 1]),
    "view_as_real": lambda value: torch.stack(list(value), -1),
    "real": lambda value: value.real,
    "imag": lambda value: value.imaginary,
    "abs": _absolute,
    "angle": lambda value: torch.atan2(value.imaginary, value.real),
    "conj": lambda value: Complex(value.real, -value.imaginary),
    "_conj": lambda value: Complex(value.real, -value.imaginary),
    "conj_physical": lambda value: Complex(value.real, -value.imaginary),
    "_conj_physical": lambda value: Complex(value.real, -value.imaginary),
    "add": _add,
    "div": _divide,
    "reciprocal": lambda value: _divide(1.0, value),
    "square": lambda value: _power(value, 2),
    "pow": _power,
    "exp": _exponential,
    "to": _convert,
    "_to_copy": _convert,
    "zeros": _zeros,
}

REWRITES = (
    Rewrite(
        name="complex-to-pairs",
        targets=("tflite", "coreml"),
        because="litert-torch 0.10 has no complex numbers and no Fourier transform; coremltools 9 has some of them",
        edit=_replace_complex_numbers,
    ),
)
