"""Convolution with weights of up to 8 bits and their scale in one operation, from the time before ``constexpr_*``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.coreml.ops.convolution import conv
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

if TYPE_CHECKING:
    from torch import Tensor

__all__: list[str] = []


@register("conv_quantized")
def conv_quantized(call: Call) -> Kernel:
    """``conv`` with ``weight * quant_scale + quant_bias``, both numbers, or one for each output channel.

    Raises:
        UnsupportedOpError: The type ``lut``, for which the operation has no argument that would hold the table.
    """
    if call.text("quantization_type", "linear") != "linear":
        raise UnsupportedOpError(f"{call}: quantization_type 'lut' has no argument for its table; only 'linear' is defined.")
    axes = len(call.shape("weight"))
    scale, shift = (_per_channel(call.array(name), axes) for name in ("quant_scale", "quant_bias"))
    plain = conv(call)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = plain.function(x, weight.to(torch.float32) * scale + shift, None if bias is None else bias.float())
        return result

    return Kernel(run, "x", "weight", "bias")


def _per_channel(values: np.ndarray, axes: int) -> Tensor:
    flat = torch.from_numpy(values.astype(np.float32).reshape(-1))
    return flat.reshape(-1, *[1] * (axes - 1))
