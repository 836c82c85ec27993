"""Options that say how a file is made (:class:`~edgekit.core.artifact.ExportOptions`), gathered into one value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from edgekit.cli.options import option

__all__ = ["export_options"]

_OPTIONS = (
    option("--integer-io/--float-io", help="Model inputs and outputs are integers instead of float (TFLite, ONNX)."),
    option("--activation-type", type=click.Choice(["uint8", "int8"]), default="uint8", show_default=True,
           help="Integer type of activations in ONNX; uint8 is what ONNX Runtime is fast with on x86."),
    option("--opset", type=click.IntRange(17, 23), metavar="17..23",
           help="ONNX operator set.  [default: 20, or 21 for 4-bit, 16-bit and block-wise types]"),
    option("--external-data/--embedded-data", help="ONNX weights in a file of their own, model.onnx.data."),
    option("--ort/--no-ort", default=True, show_default=True, help="Also write ONNX Runtime's own format, model.ort."),
    option("--ios", type=click.Choice(["15", "16", "17", "18"]),
           help="Lowest iOS the Core ML package must load on.  [default: 17, or 18 for 4-bit and block-wise weights]"),
    option("--compute-precision", type=click.Choice(["float16", "float32", "auto"]), default="float32",
           show_default=True, help="Core ML's precision for what is not integer; auto: float16 wherever the values fit."),
    option("--palette", type=click.Choice(["1", "2", "3", "4", "6", "8"]),
           help="Core ML stores float weights as indices of so many bits into a table of their values."),
    option("--image-layout", type=click.Choice(["channels-first", "channels-last"]), default="channels-first", show_default=True,
           help="Axis order of 4-D inputs and outputs in TFLite: the program's, or [N, H, W, C] as cameras give."),
    option("--preprocessing", type=click.Choice(["describe", "bake"]), default="describe", show_default=True,
           help="Describe the task's preprocessing in the file's metadata, or make the file do it, so that it takes raw pixels."),
    option("--image-inputs/--array-inputs", help="Core ML takes images; their normalisation is part of the package."),
    option("--class-labels/--class-numbers", help="Core ML answers with the name of the most likely class too."),
    option("--fixed-shapes/--open-shapes", help="Axes the task leaves open get the example's sizes, as TFLite needs it."),
    option("--signature", default="serving_default", show_default=True, help="Name of the TFLite file's signature."),
    option("--metadata", multiple=True, metavar="NAME=VALUE",
           help="Written into the file: author, license, version, description, or any other name. May be repeated."),
)  # fmt: skip


def export_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, and its function one ``options`` in place of them.

    Raises:
        UsageError: A value cannot be read, when the command is called.
    """

    @functools.wraps(function)
    def call(
        *arguments: Any,
        integer_io: bool,
        activation_type: str,
        opset: int | None,
        external_data: bool,
        ort: bool,
        ios: str | None,
        compute_precision: str,
        palette: str | None,
        image_layout: str,
        preprocessing: str,
        image_inputs: bool,
        class_labels: bool,
        fixed_shapes: bool,
        signature: str,
        metadata: tuple[str, ...],
        **others: Any,
    ) -> Any:
        from edgekit.core.artifact import ExportOptions

        fields = {
            "integer_io": integer_io,
            "activation_type": activation_type,
            "opset": opset,
            "external_data": external_data,
            "ort": ort,
            "minimum_ios_version": int(ios) if ios else None,
            "compute_precision": compute_precision,
            "palette_bits": int(palette) if palette else None,
            "image_layout": image_layout,
            "preprocessing": preprocessing,
            "image_inputs": image_inputs,
            "class_labels": class_labels,
            "fixed_shapes": fixed_shapes,
            "signature": signature,
            "metadata": _pairs(metadata),
        }
        return function(*arguments, options=ExportOptions.parse(fields, source="export options"), **others)

    for decorate in reversed(_OPTIONS):
        call = decorate(call)
    return call


def _pairs(entries: Sequence[str]) -> dict[str, str]:
    from edgekit.core.errors import UsageError

    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--metadata {entry!r} is not NAME=VALUE. Write for example --metadata author='Ann Lee'.")
        found[name.strip()] = value
    return found
