"""The compression plan as data: an ordered list of steps, with a short written form.

Grammar of the written form::

    recipe    := "none" | word ("+" word)*
    word      := "prune" percent ["-channels" | "-parameters" | "-size"] | "sparse" percent | "sparse2:4" | "distill"
               | "auto" | precision ["-exact"] ["-qat"]
    precision := "int8" | "w4a8" | "w8a16" | "dynamic-int8" | "fp16" | ("w8" | "w4") ["-g" block size]

Each step type reads its own words (:meth:`Step.from_word`), so a plug-in's step joins the grammar.
The TOML form names the same fields one by one; both forms round-trip.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic
import tomli_w

from edgekit.core.distillation import Distill, LossTerm
from edgekit.core.errors import EdgekitError, RecipeError, nearest
from edgekit.core.model import Record
from edgekit.core.precision import ActivationType, LayerPrecision, Precision, WeightType
from edgekit.core.pruning import Prune, Sparsify
from edgekit.core.step import Step
from edgekit.core.training import Training

__all__ = [
    "BUILT_IN_STEPS",
    "ActivationType",
    "Auto",
    "AwareTraining",
    "Distill",
    "Estimator",
    "LayerPrecision",
    "LossTerm",
    "Precision",
    "Prune",
    "Quantize",
    "Recipe",
    "Rounding",
    "Sparsify",
    "Step",
    "Training",
    "WeightType",
]


Estimator = Literal["min-max", "moving-average", "percentile", "mse", "entropy"]
Rounding = Literal["nearest", "compensated"]


class AwareTraining(Training):
    """Quantization-aware training, after post-training quantization has set every scale.

    Args:
        learned_scales: Train the scales too (LSQ, arXiv:1902.08153); else they stay where calibration put them.
        teacher: The task's dense model teaches: half the task's loss, and soft targets (arXiv:1503.02531) at temperature 4.
    """

    epochs: int = pydantic.Field(default=3, ge=1)
    learning_rate: float = pydantic.Field(default=1e-4, gt=0)
    learned_scales: bool = True
    teacher: bool = False


class Quantize(Step):
    """Quantization: integers for weights, activations and biases, after training or with it.

    Args:
        weights: Weight type; symmetric, one scale per output channel or per block.
        activations: Activation type; ``float32`` means weight-only.
        block_size: Weights along the input axis that share one scale (weight-only); None: per channel.
        layers: Layers with another precision, the last match wins.
        keep_float: Module paths or shell patterns (``"head.*"``) that stay in float.
        sample_count: At most this many calibration samples are used.
        estimator: How activation ranges are taken from the calibration data.
        equalization: Scale hidden channels to use the whole grid (cross-layer equalization, arXiv:1906.04721).
        bias_correction: Move biases so that rounding does not shift any layer's mean (arXiv:1906.04721, section 4.2).
        smoothing: SmoothQuant's alpha (arXiv:2211.10438): move outliers from activations into weights; None: off.
        rounding: How weights are rounded: each to its nearest step, or so that the layer's outputs stay right, each error made up
            for by the other weights (GPTQ, arXiv:2210.17323; GPTAQ, arXiv:2504.02692).
        exact: Choose scales for which every runtime computes the same bits.
        training: Quantization-aware training; None: post-training only. Trained weights and biases are rounded to nearest, as
            they were trained: ``rounding`` and ``bias_correction`` are then without effect.

    >>> Quantize().word()
    'int8'
    >>> Quantize(exact=True, training=AwareTraining()).word()
    'int8-exact-qat'
    >>> Quantize.from_word("w4-g32").block_size
    32
    """

    words: ClassVar[tuple[str, ...]] = (
        "int8", "int8-exact", "int8-qat", "int8-exact-qat", "w4a8", "w4a8-qat",
        "w8a16", "dynamic-int8", "w8", "w4", "w4-g32", "fp16",
    )  # fmt: skip

    kind: Literal["quantize"] = "quantize"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    weights: WeightType = "int8"
    activations: ActivationType = "int8"
    block_size: int | None = None
    layers: tuple[LayerPrecision, ...] = ()
    keep_float: tuple[str, ...] = ()
    sample_count: int = pydantic.Field(default=512, ge=1)
    estimator: Estimator = "min-max"
    equalization: bool = True
    bias_correction: bool = True
    smoothing: float | None = pydantic.Field(default=None, ge=0.0, le=1.0)
    rounding: Rounding = "compensated"
    exact: bool = False
    training: AwareTraining | None = None

    @pydantic.model_validator(mode="after")
    def _check_combination(self) -> Self:
        precision = self.precision  # checks weights, activations and block_size
        if self.exact and precision.activations != "int8":
            msg = f"exact needs int8 activations, found {precision.activations}"
            raise ValueError(msg)
        if self.training is not None and precision.activations not in {"int8", "int16"}:
            msg = f"training needs int8 or int16 activations, found {precision.activations}"
            raise ValueError(msg)
        return self

    @property
    def precision(self) -> Precision:
        """What a layer becomes that :attr:`layers` does not name."""
        return Precision(weights=self.weights, activations=self.activations, block_size=self.block_size)

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """A precision's word, with ``-exact`` and ``-qat`` after it."""
        stem = word.removesuffix("-qat")
        training = AwareTraining() if stem != word else None
        base = stem.removesuffix("-exact")
        precision = Precision.from_word(base)
        if precision is None or base == "float32":
            return None
        data = {**precision.model_dump(), "exact": base != stem, "training": training}
        return cls.parse(data, source=f"Recipe word '{word}'")

    def word(self) -> str:
        """The written form of the precision, ``-exact`` and ``-qat``; it leaves out the other fields."""
        return f"{self.precision.word}{'-exact' if self.exact else ''}{'-qat' if self.training else ''}"


class Auto(Step):
    """The cheapest quantization that keeps the metric, found by trying.

    Args:
        max_drop: How much worse than the float model the metric may be, in points (hundredths of the metric's unit).
        candidates: Written forms of the plans to try. ``mixed``: int8, with the layers that hurt most in a dearer precision.
        size_bytes: Weights may take at most this; None: no bound.
        confidence: How sure the non-inferiority test is that a plan it passes keeps the bound.
        targets: The targets that must have kernels for what is chosen; empty: every target.
        sample_count: At most this many calibration samples are used.

    >>> Auto.from_word("auto").max_drop
    0.5
    """

    words: ClassVar[tuple[str, ...]] = ("auto",)

    kind: Literal["auto"] = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    max_drop: float = pydantic.Field(default=0.5, ge=0, lt=100)
    candidates: tuple[str, ...] = pydantic.Field(default=("w4a8", "int8", "mixed", "w8", "fp16"), min_length=1)
    size_bytes: int | None = pydantic.Field(default=None, ge=1)
    confidence: float = pydantic.Field(default=0.95, gt=0.5, lt=1)
    targets: tuple[str, ...] = ()
    sample_count: int = pydantic.Field(default=512, ge=1)

    @pydantic.field_validator("candidates")
    @classmethod
    def _check_candidates(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        known = (*Quantize.words, "mixed")
        for word in words:
            if word != "mixed" and Quantize.from_word(word) is None:
                msg = f"unknown candidate {word!r}; known: {', '.join(known)}.{nearest(word, known)}"
                raise ValueError(msg)
        return words

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """``auto``."""
        return cls() if word == "auto" else None


BUILT_IN_STEPS: tuple[type[Step], ...] = (Prune, Sparsify, Distill, Quantize, Auto)


class Recipe(Record):
    """An ordered list of steps.

    >>> Recipe.parse_text("int8").steps == (Quantize(),)
    True
    >>> Recipe.parse_text("none").steps
    ()
    >>> Recipe.parse_text("int9")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    edgekit.core.errors.RecipeError: Recipe 'int9': unknown word 'int9'; known words are none, prune50, ... Did you mean 'int8'?
    """

    error: ClassVar[type[EdgekitError]] = RecipeError

    schema_version: Literal[1] = 1
    name: str
    steps: tuple[pydantic.SerializeAsAny[Step], ...] = ()

    @classmethod
    def parse_text(cls, text: str, *, step_types: Sequence[type[Step]] = BUILT_IN_STEPS) -> Recipe:
        """Read the written form.

        Raises:
            RecipeError: Names the word it could not read and the nearest known one.
        """
        if text.strip() == "none":
            return cls(name="none")
        steps = [_step_from_word(word.strip(), text, step_types) for word in text.split("+")]
        for at, (step, after) in enumerate(itertools.pairwise(steps)):
            if isinstance(step, Prune | Sparsify) and isinstance(after, Distill):
                steps[at] = step.replace(recover=False)  # the teacher does that
        return cls(name=text.strip(), steps=tuple(steps))

    @classmethod
    def from_data(cls, data: Any, *, source: str, step_types: Sequence[type[Step]] = BUILT_IN_STEPS) -> Recipe:
        """Read the table form (from TOML or JSON)."""
        if not isinstance(data, dict):
            raise RecipeError(f"{source}: expected a table with 'name' and 'steps', found {type(data).__name__}.")
        rows = data.get("steps", [])
        if not isinstance(rows, list | tuple):
            raise RecipeError(f"{source}: 'steps' must be an array of tables ([[steps]]), found {type(rows).__name__}.")
        steps = tuple(_step_from_row(row, f"{source}: steps[{i}]", step_types) for i, row in enumerate(rows))
        return cls.parse({**data, "steps": steps}, source=source)

    @classmethod
    def read(cls, source: str | Path, *, step_types: Sequence[type[Step]] = BUILT_IN_STEPS) -> Recipe:
        """Read a recipe from its written form, or from a ``.toml`` file."""
        if str(source).endswith(".toml"):
            raw = _RawRecipe.read_toml(Path(source))
            data = {"name": Path(source).stem, **(raw.model_extra or {})}
            try:
                return cls.from_data(data, source=str(source), step_types=step_types)
            except RecipeError as reason:
                line = _line_of(Path(source).read_text(encoding="utf-8"), str(reason), reason.field)
                raise RecipeError(str(reason).replace(f"{source}:", f"{source}, line {line}:", 1)) from reason
        return cls.parse_text(str(source), step_types=step_types)

    def to_toml(self) -> str:
        """The TOML form, every default written out (a field that is None has no TOML form and is left out)."""
        data = self.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps(data)


def _line_of(text: str, message: str, field: str) -> int:
    """The line of a TOML recipe an error is about: of the field in its step, else of the step, else the first."""
    step = re.search(r"steps\[(\d+)\]", message)
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if line.strip().startswith("[[steps]]")]
    number = int(step[1]) if step else 0
    begin = starts[number] if step and number < len(starts) else 0
    end = starts[number + 1] if step and number + 1 < len(starts) else len(lines)
    name = field.partition(".")[0]
    for at in range(begin, end):
        if name and re.match(rf"\s*{re.escape(name)}\s*=", lines[at]):
            return at + 1
    return begin + 1


class _RawRecipe(Record):
    """Any table: lets :meth:`Recipe.read` reuse the TOML reader and its messages."""

    model_config = pydantic.ConfigDict(extra="allow")
    error: ClassVar[type[EdgekitError]] = RecipeError


def _step_from_word(word: str, text: str, step_types: Sequence[type[Step]]) -> Step:
    for step_type in step_types:
        step = step_type.from_word(word)
        if step is not None:
            return step
    known = ["none", *(word for step_type in step_types for word in step_type.words)]
    raise RecipeError(f"Recipe '{text}': unknown word '{word}'; known words are {', '.join(known)}.{nearest(word, known)}")


def _step_from_row(row: Any, source: str, step_types: Sequence[type[Step]]) -> Step:
    kinds = {str(step_type.model_fields["kind"].default): step_type for step_type in step_types}
    kind = row.get("kind") if isinstance(row, dict) else None
    if kind not in kinds:
        raise RecipeError(f"{source}: unknown kind {kind!r}; known kinds are {', '.join(kinds)}.{nearest(str(kind), kinds)}")
    return kinds[kind].parse(row, source=source)
