"""Where attention splits channels into heads, found by watching a net run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from edgekit.compression.prune.groups import Heads

__all__ = ["head_counts", "head_fields"]

_COUNTS = ("num_heads", "n_heads", "n_head", "nhead", "heads", "num_attention_heads", "head_count")
_WIDTHS = ("all_head_size", "inner_dim", "inner_width", "head_width", "attention_width")


class _Watch(TorchFunctionMode):
    """Notes which linear layers' outputs, split into heads, are the operands of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[int, tuple[str, int, torch.Tensor]] = {}
        self.counts: dict[str, int] = {}

    def hook(self, name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            del module, inputs
            # The tensor is kept, so that no later one lies at its address.
            self.owners[output.untyped_storage().data_ptr()] = (name, output.shape[-1], output)

        return note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {nn.functional.scaled_dot_product_attention, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__}:
            for operand in args[:3]:
                if not isinstance(operand, torch.Tensor) or operand.dim() != 4:
                    continue
                name, width, _ = self.owners.get(operand.untyped_storage().data_ptr(), ("", 0, None))
                if name and operand.shape[1] > 1 and width % operand.shape[1] == 0:
                    self.counts[name] = operand.shape[1]
        return func(*args, **(kwargs or {}))


def head_counts(net: nn.Module, call: Any) -> dict[str, int]:
    """Linear layer -> number of heads its output is split into for attention (``[N, H, T, D]``)."""
    watch = _Watch()
    hooks = [
        module.register_forward_hook(watch.hook(name)) for name, module in net.named_modules() if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad(), watch:
            call(net)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.counts


def head_fields(net: nn.Module, layer: str, *, count: int, block: int) -> tuple[Heads, ...]:
    """Fields of the module around a layer that hold the number of heads, or their joint width."""
    path = layer.rpartition(".")[0]
    fields = vars(net.get_submodule(path))
    counts = [Heads(path, name, 1) for name in _COUNTS if fields.get(name) == count]
    return (*counts, *(Heads(path, name, block) for name in _WIDTHS if fields.get(name) == count * block))
