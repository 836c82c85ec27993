"""Which tensors of a layer shrink when channels go, and along which axis: one table for all that prunes, masks, scores or counts.

==================  =========================  ========================================================
layer               its output channels        its input channels
==================  =========================  ========================================================
conv                weight 0, bias             weight 1 (with groups: the same offsets in each)
transposed conv     weight 1, bias             weight 0
depthwise conv      weight 0, bias             the same channels
linear              weight 0, bias             weight 1
batch/instance norm all vectors                the same channels
layer/group norm    weight -1, bias -1         the same channels
embedding           weight 1                   –
LSTM, GRU, RNN      rows of each gate,         columns of the first layer's ``weight_ih``
                    columns of ``weight_hh``
bare parameter      the traced axis            the same channels
==================  =========================  ========================================================
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["Axis", "Role", "Side", "axes", "is_depthwise", "part", "resize", "side_width"]

Side = Literal["out", "in"]
Role = Literal["producer", "consumer", "norm", "statistic"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of one tensor that shrinks with a layer's channels.

    Args:
        tensor: Path of the parameter or buffer in the net.
        axis: The axis that shrinks.
        role: Weights that make the channels, weights that read them, the norm's own vectors, or statistics.
        modulus: Channels are taken modulo this first; None: as they are.
        offsets: Each channel stands at these places of the axis (the gates of a recurrent layer).
    """

    tensor: str
    axis: int
    role: Role
    modulus: int | None = None
    offsets: tuple[int, ...] = (0,)

    def indices(self, channels: torch.Tensor) -> torch.Tensor:
        """Places on the axis of the layer's channels ``[C]``, sorted and each once."""
        within = channels if self.modulus is None else channels % self.modulus
        found: torch.Tensor = torch.unique(torch.cat([within + offset for offset in self.offsets]))
        return found


def is_depthwise(module: nn.Module) -> bool:
    """Whether each channel of a convolution is filtered on its own."""
    return isinstance(module, _ConvNd) and module.groups > 1 and module.groups == module.in_channels == module.out_channels


def part(net: nn.Module, path: str) -> nn.Module | nn.Parameter:
    """The module or bare parameter at a path."""
    parent, _, name = path.rpartition(".")
    owner = net.get_submodule(parent)
    found = owner._parameters.get(name)
    return found if found is not None else net.get_submodule(path)


def axes(module: nn.Module | nn.Parameter, name: str, side: Side, *, axis: int = -1) -> tuple[Axis, ...]:
    """The tensors that shrink when channels on one side of a layer go.

    Args:
        module: The layer, or a bare parameter.
        name: Its path in the net.
        side: Its output or its input channels.
        axis: The axis of a bare parameter.
    """
    if isinstance(module, nn.Parameter):
        return (Axis(name, axis, "norm"),)
    if is_depthwise(module):
        return _present(module, name, [("weight", 0, "norm"), ("bias", 0, "norm")])
    if isinstance(module, _ConvNd):
        return _conv_axes(module, name, side)
    if isinstance(module, nn.Linear):
        return _present(
            module, name, [("weight", 0, "producer"), ("bias", 0, "producer")] if side == "out" else [("weight", 1, "consumer")]
        )
    if isinstance(module, nn.Embedding):
        return (Axis(f"{name}.weight", 1, "producer"),)
    if isinstance(module, nn.RNNBase):
        return _recurrent_axes(module, name, side)
    if isinstance(module, nn.PReLU):
        return (Axis(f"{name}.weight", 0, "norm"),) if module.num_parameters > 1 else ()
    vectors: list[tuple[str, int, Role]] = [("weight", -1, "norm"), ("bias", -1, "norm")]
    return _present(module, name, [*vectors, ("running_mean", 0, "statistic"), ("running_var", 0, "statistic")])


def _present(module: nn.Module, name: str, rows: list[tuple[str, int, Role]]) -> tuple[Axis, ...]:
    return tuple(Axis(f"{name}.{tensor}", axis, role) for tensor, axis, role in rows if getattr(module, tensor, None) is not None)


def _conv_axes(module: _ConvNd, name: str, side: Side) -> tuple[Axis, ...]:
    turned = isinstance(module, _ConvTransposeNd)
    if side == "out":
        modulus = module.out_channels // module.groups if turned and module.groups > 1 else None
        rows = [Axis(f"{name}.weight", 1 if turned else 0, "producer", modulus)]
        return (*rows, Axis(f"{name}.bias", 0, "producer")) if module.bias is not None else tuple(rows)
    modulus = module.in_channels // module.groups if module.groups > 1 and not turned else None
    return (Axis(f"{name}.weight", 0 if turned else 1, "consumer", modulus),)


def _recurrent_axes(module: nn.RNNBase, name: str, side: Side) -> tuple[Axis, ...]:
    endings = ("", "_reverse") if module.bidirectional else ("",)
    if side == "in":
        return tuple(Axis(f"{name}.weight_ih_l0{ending}", 1, "consumer") for ending in endings)
    size = module.hidden_size
    gates = tuple(gate * size for gate in range(_GATES[module.mode]))
    found = []
    for layer in range(module.num_layers):
        for ending in endings:
            at = f"l{layer}{ending}"
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if module.bias else ("weight_ih", "weight_hh")
            found += [Axis(f"{name}.{kind}_{at}", 0, "producer", size, gates) for kind in kinds]
            found.append(Axis(f"{name}.weight_hh_{at}", 1, "consumer", size))
            if layer:
                below = tuple(direction * size for direction in range(len(endings)))
                found.append(Axis(f"{name}.weight_ih_{at}", 1, "consumer", size, below))
    return tuple(found)


def side_width(module: nn.Module | nn.Parameter, side: Side, *, axis: int = -1) -> int:
    """How many channels a layer has on one side."""
    if isinstance(module, nn.Parameter):
        return int(module.shape[axis])
    if isinstance(module, nn.RNNBase):
        return module.input_size if side == "in" else module.hidden_size * (2 if module.bidirectional else 1)
    for names in (("out_channels", "in_channels"), ("out_features", "in_features")):
        if hasattr(module, names[0]):
            return int(getattr(module, names[0 if side == "out" else 1]))
    for name in ("num_features", "num_channels", "embedding_dim", "num_parameters"):
        if hasattr(module, name):
            return int(getattr(module, name))
    return int(module.normalized_shape[-1])  # type: ignore[index, union-attr, unused-ignore]  # a layer norm


def resize(module: nn.Module | nn.Parameter, side: Side, *, width: int) -> None:
    """Write a layer's new width into its own fields."""
    if isinstance(module, nn.Parameter):
        return
    if is_depthwise(module):
        module.in_channels = module.out_channels = module.groups = width  # type: ignore[assignment, unused-ignore]
    elif isinstance(module, _ConvNd):
        setattr(module, f"{side}_channels", width)
    elif isinstance(module, nn.Linear):
        setattr(module, f"{side}_features", width)
    elif isinstance(module, nn.RNNBase):
        if side == "in":
            module.input_size = width
        else:
            module.hidden_size = width // (2 if module.bidirectional else 1)
        module._init_flat_weights()
    elif isinstance(module, _BatchNorm | _InstanceNorm):
        module.num_features = width
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = width
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = width
    elif isinstance(module, nn.PReLU):
        module.num_parameters = width
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (*module.normalized_shape[:-1], width)
