"""Where a file and the program it was made from part ways: per layer, what is its own error and what comes from before."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from edgekit.core.error_split import ErrorSplit
from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.model import Record
from edgekit.core.provenance import Provenance

__all__ = ["RENDERERS", "BisectedLayer", "Bisection", "Divergence", "Remedy"]

RENDERERS: dict[str, Callable[[Bisection], str]] = {}
"""How a notebook shows a bisection, by MIME type; see :data:`edgekit.core.validation.RENDERERS`."""

Unit = Literal["steps", "relative"]
"""Steps of the quantization contract's grid; or of the largest value the program has at that place."""


class BisectedLayer(Record):
    """One value of the program that the file holds.

    Args:
        node: Node of the program's graph.
        op: Operator, e.g. ``"conv2d"``.
        layer: Module path; empty for code of the model's own ``forward``.
        source: ``file:line`` of the user's code, where torch recorded it.
        tensor: The file's tensor.
        unit: Of both errors.
        local_error: Largest difference between the file's value and what the program makes of the file's own values before it.
        inherited_error: Largest difference from the program's own value: all errors up to here.
        is_equal: The local error is no more than rounding.
        float_snr_db: Signal-to-noise ratio of the file's value against the float program's; None where it was not asked for, or
            the float program has no such value.
    """

    node: str
    op: str
    layer: str = ""
    source: str = ""
    tensor: str
    unit: Unit
    local_error: float
    inherited_error: float
    is_equal: bool
    float_snr_db: float | None = None


class Divergence(BisectedLayer):
    """A place where the file computes otherwise.

    Args:
        code: The user's line.
        ops: Operators of the program that are one with it in the file, in order.
        layers: Module paths of those operators.
        reads: The file's tensors that it is computed from.
        file_ops: The file's operators in between, e.g. ``("PAD", "CONV_2D")``.
        tolerance: Largest local error that counts as rounding, in the same unit.
        share: Share of the values that differ by more than that.
        grid: How the file's grid differs from the contract's; empty where it does not.
        altered: Constants of these operators that differ from the exported file's, where another file was examined.
        reproduction: Folder with a script that shows the difference; empty where none was written.
    """

    code: str = ""
    ops: tuple[str, ...]
    layers: tuple[str, ...]
    reads: tuple[str, ...]
    file_ops: tuple[str, ...]
    tolerance: float
    share: float
    grid: str = ""
    altered: tuple[str, ...] = ()
    reproduction: str = ""

    @property
    def name(self) -> str:
        """The layer for a sentence: its module path, or the operator where the model's own code calls it."""
        return self.layer or f"the model's own {self.op}"


class Remedy(Record):
    """Something that was tried against a divergence.

    Args:
        action: What to do, as a sentence.
        error_before: Largest error of the outputs with the file as it is.
        error_after: The same with the remedy; None where it could not be carried out.
        unit: Of both.
        divergence_count: Places that still compute otherwise.
        note: Why it could not be carried out.
    """

    action: str
    error_before: float
    error_after: float | None = None
    unit: Unit = "relative"
    divergence_count: int = 0
    note: str = ""

    @property
    def helped(self) -> bool:
        """Whether nothing computes otherwise any more."""
        return self.error_after is not None and self.divergence_count == 0


class Bisection(Record):
    """The comparison of a file with its program, tensor by tensor.

    Args:
        run: The run folder.
        target: The target.
        label: The artifact's label, ``"tflite"``.
        path: The file.
        sha256: Its digest.
        is_exported: Whether it is the very file that was exported.
        program: Which program it is compared with, in words.
        sample_count: Golden samples it was run on.
        method: How the file was run, in words. Its values are reference values, not a device's.
        tolerance: What counts as rounding, in words.
        output_error: Largest error of any output against the program's, relative to that output's largest value.
        layers: Every value of the program that the file holds, in the program's order.
        divergences: Where the file computes otherwise, in the program's order.
        remedies: What was tried.
        provenance: Which node each tensor holds.
        notes: What a reader should know.
        split: Every layer's error split into its causes; None where it was not asked for.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    run: str
    target: str
    label: str
    path: str
    sha256: str
    is_exported: bool
    program: str
    sample_count: int
    method: str
    tolerance: str
    output_error: float
    layers: tuple[BisectedLayer, ...]
    divergences: tuple[Divergence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    provenance: Provenance
    notes: tuple[str, ...] = ()
    split: ErrorSplit | None = None

    @property
    def passed(self) -> bool:
        """Whether the file computes what the program computes, everywhere it can be seen."""
        return not self.divergences

    @property
    def first(self) -> Divergence | None:
        """The first place where it does not."""
        return self.divergences[0] if self.divergences else None

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None
