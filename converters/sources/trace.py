"""``nn.Module`` -> exported program with flat tensors in and out, and names for them."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from edgekit.core.errors import CaptureError, EdgekitError, IntegrityError
from edgekit.core.program import run_program
from edgekit.core.source import OpenInput, random_samples
from edgekit.core.tensors import TensorSpec

__all__ = ["check_weights", "example_tensors", "forward_inputs", "output_names", "output_specs", "trace_module", "tracing"]


class _Flat(torch.nn.Module):
    """Returns the values of a dictionary, or of a data class with such a view, as a tuple."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arrays: torch.Tensor) -> Any:
        return tuple(self.model(*arrays).values())


def forward_inputs(module: torch.nn.Module) -> list[OpenInput]:
    """The parameters ``forward`` must be given, in order."""
    return [
        OpenInput(name=name)
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD} and parameter.default is parameter.empty
    ]


def example_tensors(inputs: Sequence[TensorSpec], *, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """One set of inputs drawn at random."""
    return tuple(torch.from_numpy(array[0]) for array in random_samples(inputs, count=1, seed=seed).values())


def trace_module(module: torch.nn.Module, inputs: Sequence[TensorSpec], *, where: str) -> tuple[ExportedProgram, list[str]]:
    """Trace a module on inputs of fixed shapes.

    Args:
        module: Called with the inputs in order; in evaluation mode.
        inputs: Its inputs.
        where: The file, for messages.

    Returns:
        The program, and the names of its outputs: a dictionary's keys, else ``output`` or ``output_0`` and so on.

    Raises:
        CaptureError: The module fails on such inputs, returns something else than tensors, or cannot be traced.
        IntegrityError: A weight is not finite.
    """
    check_weights(module.state_dict(), where)
    arguments = example_tensors(inputs)
    with tracing(where, "the model fails on inputs of these shapes"):
        result = module(*arguments)
    names = output_names(result, where)
    called = _Flat(module) if isinstance(result, Mapping) else module
    with tracing(where, "torch.export cannot trace the model"):
        return torch.export.export(called, arguments, strict=False), names


@contextlib.contextmanager
def tracing(where: str, what: str) -> Iterator[None]:
    """No gradients and no warnings; whatever fails is a :class:`CaptureError` that says where, and what was tried."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except EdgekitError:
        raise
    except Exception as reason:
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), "")
        raise CaptureError(f"{where}: {what}. {type(reason).__name__}: {first}") from reason


def output_names(result: Any, where: str) -> list[str]:
    """Names of what a model returned.

    Raises:
        CaptureError: It is something else than tensors.
    """
    if isinstance(result, torch.Tensor):
        return ["output"]
    if isinstance(result, Mapping) and result and all(isinstance(value, torch.Tensor) for value in result.values()):
        return [str(key) for key in result]
    if isinstance(result, tuple | list) and result and all(isinstance(value, torch.Tensor) for value in result):
        return [f"output_{index}" for index in range(len(result))]
    raise CaptureError(
        f"{where}: the model returns {type(result).__name__}; it must return a tensor, or a tuple or dictionary of tensors."
    )


def output_specs(program: ExportedProgram, arguments: Sequence[torch.Tensor], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """What a program returns, under the given names."""
    return tuple(
        TensorSpec.parse(
            {"name": name, "shape": tuple(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}, source=name
        )
        for name, value in zip(names, run_program(program, arguments), strict=True)
    )


def check_weights(weights: Mapping[str, Any], where: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        IntegrityError: Names the first.
    """
    for name, tensor in weights.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise IntegrityError(
                f"{where}: weight '{name}' holds {bad} values that are NaN or infinite. Use a healthy checkpoint."
            )
