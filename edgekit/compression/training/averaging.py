"""An exponential average of a net's weights, often better than the last ones (Polyak averaging; arXiv:1806.05594)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["Average"]


class Average:
    """``average <- decay * average + (1 - decay) * weights`` after each step, for parameters and buffers alike.

    The decay begins small, ``(1 + t) / (10 + t)`` after ``t`` steps, so that the first weights are soon forgotten (as
    TensorFlow's ``ExponentialMovingAverage`` does with ``num_updates``).

    Args:
        model: Its state is averaged; integers (batch counters) are taken as they are.
        decay: In (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._live = [tensor for tensor in model.state_dict(keep_vars=True).values() if tensor.is_floating_point()]
        self._names = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
        self._held = [tensor.detach().clone() for tensor in self._live]

    def update(self) -> None:
        """Take the present weights in."""
        self.steps += 1
        decay = min(self.decay, self.steps / (9.0 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self._held, [tensor.detach() for tensor in self._live], 1 - decay)

    def state(self) -> dict[str, torch.Tensor]:
        """Averages by name; the very tensors that :meth:`update` changes."""
        return dict(zip(self._names, self._held, strict=True))

    def load(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go back to a checkpoint's state."""
        self.steps = steps
        for name, held in self.state().items():
            held.copy_(state[name])
