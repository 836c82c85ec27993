"""Causes of the error in the report: sentences, tables, figure and page."""

from __future__ import annotations

import io
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from edgekit.core.error_split import ErrorSplit, KernelDifference, KernelSpread, LayerSplit
from edgekit.core.validation import ValidationReport
from edgekit.report import bisection, page
from edgekit.report.error_split import describe, layer_table, power, spread_rows, spread_sentences, spread_table
from edgekit.report.figure_error_split import split_figure
from edgekit.report.terminal import plain_text

LAYERS = tuple(
    LayerSplit(
        entry=f"blocks.{at}.conv", op="conv2d", file_op="CONV_2D", rule="float32 multiplier, half to even", value_count=1000,
        signal=900.0, weights=0.02 * at, clipping=0.0, rounding=0.08, rewrite=0.0, kernel=0.01 if at == 2 else 0.0, cross=0.0,
        total=0.08 + 0.02 * at + (0.01 if at == 2 else 0.0), exact_share=0.99 if at == 2 else 1.0, explained_share=1.0,
    )
    for at in range(4)
)  # fmt: skip
RULES = ("float32 multiplier, half to even", "fixed-point multiplier, rounded twice upward")
SPREADS = (
    KernelSpread(
        first="LiteRT XNNPACK", second="TFLite built-in", layer_count=4, identical_share=0.99997,
        layers=(KernelDifference(entry="blocks.2.conv", op="conv2d", differing_share=0.01, largest_steps=1, rules=RULES),),
    ),
    KernelSpread(first="ONNX Runtime", second="LiteRT XNNPACK", layer_count=4, identical_share=1.0),
    KernelSpread(first="ONNX Runtime", second="TFLite built-in", layer_count=4, identical_share=0.99997),
)  # fmt: skip
SPLIT = ErrorSplit(
    run="run", target="tflite", label="tflite", executor="LiteRT XNNPACK", rules="XNNPACK", simulation="float32", sample_count=3,
    layers=LAYERS, spreads=SPREADS,
)  # fmt: skip


def printed(renderable: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_sentences_name_the_causes_and_the_layers() -> None:
    first, second, third = describe(SPLIT)
    assert "rounding 71.11 %, weights 26.67 %, kernel 2.22 %" in first
    assert second == "The rounding rules of XNNPACK reproduce 100 % of its integers bit for bit."
    assert "blocks.2.conv 99.00 %" in third
    quiet = SPLIT.replace(layers=tuple(row.replace(kernel=0.0, exact_share=1.0) for row in LAYERS))
    assert list(describe(quiet))[-1].startswith("Every layer's integers equal the simulation")


def test_pairs_of_other_executors_are_left_to_the_table() -> None:
    sentences = list(spread_sentences(SPLIT))
    assert len(sentences) == 2
    assert "blocks.2.conv 1.00 % differ (float32 multiplier, half to even against fixed-point" in sentences[0]
    assert sentences[1] == "ONNX Runtime – LiteRT XNNPACK: bit for bit equal in all 4 layers."
    assert [row.layers for row in spread_rows(SPREADS)] == ["1 of 4", "0 of 4", "0 of 4"]
    assert spread_rows(SPREADS)[0].identical == ">99.99 %"


def test_tables_fit_eighty_columns() -> None:
    shown = printed(layer_table(LAYERS))
    assert "blocks.3.conv" in shown
    assert "0.0600" in shown
    assert "…" not in shown
    assert "blocks.2.conv 1.00 %" in printed(spread_table(SPREADS))


@pytest.mark.parametrize(("value", "words"), [(1 / 12, "0.0833"), (1e-15, "0"), (1e-9, "<0.00001"), (None, "–"), (12.34, "12.3")])
def test_powers_are_short(value: float | None, words: str) -> None:
    assert power(value) == words


@pytest.mark.parametrize("width", [360.0, 1116.0])
def test_the_figure_stacks_the_parts_of_every_layer(width: float) -> None:
    drawing = ET.fromstring(split_figure(LAYERS, width=width))
    cells = [node for node in drawing.iter("rect") if "cell" in (node.get("class") or "")]
    assert len(cells) == 4 + 3 + 1  # rounding everywhere, weights in three, kernel in one
    for cell in cells:
        assert float(cell.get("x") or 0) + float(cell.get("width") or 0) <= width
        assert float(cell.get("height") or 0) > 0
    assert any("kernel 0.0100 steps²" in (node.text or "") for node in drawing.iter("title"))
    assert split_figure((), width=width) == ""


def test_the_report_shows_a_split_where_there_is_one(shipping: ValidationReport) -> None:
    assert "Causes of the error" not in page.page_html(shipping)
    assert "Error by its causes" not in plain_text(shipping)
    with_split = shipping.replace(error_splits=(SPLIT,))
    html, terminal = page.page_html(with_split), plain_text(with_split)
    assert "Causes of the error" in html
    assert "float32 multiplier, half to even" in html
    assert "LiteRT XNNPACK – TFLite built-in" in html
    assert "Error by its causes, tflite in LiteRT XNNPACK" in terminal
    assert "blocks.2.conv" in terminal
    assert ValidationReport.parse(with_split.model_dump(mode="json"), source="a test") == with_split


def test_a_reason_stands_where_a_part_is_missing(shipping: ValidationReport) -> None:
    lacking = LAYERS[1].replace(weights=None, rewrite=None, kernel=None, unsplit=0.5, explained_share=None, reason="no <kernel>")
    html = page.page_html(shipping.replace(error_splits=(SPLIT.replace(layers=(lacking,)),)))
    assert "no &lt;kernel&gt;" in html
    assert bisection.error_split.power(lacking.power("weights")) == "–"
