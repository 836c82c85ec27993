"""What layers inside a net return while it is called: read by forward hooks that stay only for the call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from edgekit.core.errors import RecipeError, nearest

__all__ = ["check_tapped", "find_layers", "tapping"]


def find_layers(model: nn.Module, names: Iterable[str], *, whose: str) -> dict[str, nn.Module]:
    """Layers by module path.

    Args:
        model: The net.
        names: Module paths, as ``model.named_modules()`` gives them.
        whose: ``"student"`` or ``"teacher"``, for the message.

    Raises:
        RecipeError: The net has no such layer; gives the nearest names.
    """
    known = dict(model.named_modules())
    found = {}
    for name in dict.fromkeys(names):
        if not name or name not in known:
            paths = [path for path in known if path]
            shown = ", ".join(paths[:12]) + (", …" if len(paths) > 12 else "")
            raise RecipeError(f"The {whose} has no layer '{name}'.{nearest(name, paths)} It has {shown}.")
        found[name] = known[name]
    return found


@contextlib.contextmanager
def tapping(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """While the block runs, collect what the layers return, by their names; of a layer called twice, the last.

    Of a layer that returns several tensors (an LSTM) the first is taken.
    """
    found: dict[str, torch.Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, layer in layers.items():
            stack.enter_context(_hook(layer, name, found))
        yield found


def check_tapped(found: Mapping[str, torch.Tensor], layers: Iterable[str], *, whose: str) -> None:
    """Refuse layers that a call did not reach.

    Raises:
        RecipeError: Names the layer.
    """
    for name in layers:
        if name not in found:
            raise RecipeError(
                f"Layer '{name}' of the {whose} is never called, or returns no tensor; name the layer that computes the features."
            )


def _hook(layer: nn.Module, name: str, found: dict[str, torch.Tensor]) -> Any:
    def keep(_layer: nn.Module, _inputs: Any, result: Any) -> None:
        first = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(first, torch.Tensor):
            found[name] = first

    return layer.register_forward_hook(keep)
