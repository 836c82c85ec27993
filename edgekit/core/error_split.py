"""The error of every quantized layer, split into what makes it.

A layer is fed the compressed program's own integers, so nothing is inherited. With all values in steps of its output grid::

    float weights    real value    kept in range    program's integers    file, simulated    runtime's integers
         u      ->       v      ->       c       ->         p          ->        f        ->        r
           weights = v-u   clipping = c-v   rounding = p-c      rewrite = f-p        kernel = r-f

The parts add up value by value: ``r - u`` is their sum. A part's power is its mean square, and the powers add up to the total's
but for the *cross* term, twice the mean products of different parts; it is given as it is, and may be negative.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.model import Record

__all__ = ["PARTS", "ErrorSplit", "KernelDifference", "KernelSpread", "LayerSplit", "Part"]

Part = Literal["weights", "clipping", "rounding", "rewrite", "kernel"]
PARTS: tuple[Part, ...] = ("weights", "clipping", "rounding", "rewrite", "kernel")
"""In the order in which they arise."""


class LayerSplit(Record):
    """One layer. Powers are mean squares in output steps.

    Args:
        entry: Contract entry of the layer's output.
        op: Operator family.
        file_op: The file's operator that makes it, ``"CONV_2D"``; empty where it is not known.
        rule: How the runtime rounds there, in words; empty where that is not modelled.
        value_count: Values compared.
        signal: Power of the real value.
        weights: Dequantized weights against the float program's; None where the float program has no such value.
        clipping: What lies outside the grid's range; a clamp of the model's own that saturation stands for is not counted.
        rounding: To whole steps, by the program.
        rewrite: The file's own arithmetic, simulated in float, against the program's; None where it cannot be simulated.
        kernel: The runtime's answers against the simulation; None where there is no simulation.
        unsplit: The runtime's answers against the program's, where rewrite and kernel cannot be told apart; else None.
        cross: Power of the total less the sum of the parts' powers.
        total: Power of the whole error.
        exact_share: Share of the runtime's integers that equal the simulation's (the program's where there is none).
        explained_share: Share that the runtime's own rounding rules reproduce; None where they are not modelled.
        reason: Why a part is missing.
    """

    entry: str
    op: str
    file_op: str = ""
    rule: str = ""
    value_count: int
    signal: float
    weights: float | None = None
    clipping: float
    rounding: float
    rewrite: float | None = None
    kernel: float | None = None
    unsplit: float | None = None
    cross: float
    total: float
    exact_share: float
    explained_share: float | None = None
    reason: str = ""

    def power(self, part: Part) -> float | None:
        """A part's power."""
        return {
            "weights": self.weights, "clipping": self.clipping, "rounding": self.rounding, "rewrite": self.rewrite,
            "kernel": self.kernel,
        }[part]  # fmt: skip

    def snr_db(self, part: Part | None = None) -> float | None:
        """Signal over a part's noise, or over the total's; None where there is no such part, or no noise.

        >>> layer = LayerSplit(entry="a", op="add", value_count=1, signal=100.0, clipping=0.0, rounding=1.0, cross=0.0,
        ...     total=1.0, exact_share=1.0)
        >>> layer.snr_db("rounding"), layer.snr_db("clipping")
        (20.0, None)
        """
        noise = self.total if part is None else self.power(part)
        if not noise:
            return None
        return 10.0 * math.log10(self.signal / noise) if self.signal > 0 else -math.inf

    @property
    def largest(self) -> Part | None:
        """The part with the most power; None where there is no error at all."""
        found = max(PARTS, key=lambda part: self.power(part) or 0.0)
        return found if self.power(found) else None


class KernelDifference(Record):
    """A layer that two executors answer differently, fed the same integers.

    Args:
        entry: Contract entry.
        op: Operator family.
        differing_share: Share of the values that differ.
        largest_steps: Largest difference.
        rules: How either rounds there, in words; empty where that is not modelled.
    """

    entry: str
    op: str
    differing_share: float
    largest_steps: int
    rules: tuple[str, str]


class KernelSpread(Record):
    """Two executors of the same integers, layer by layer.

    Args:
        first: Name of one.
        second: Name of the other.
        layer_count: Layers both answered.
        identical_share: Share of all values that are equal.
        layers: Layers they answer differently, most differing first.
    """

    first: str
    second: str
    layer_count: int
    identical_share: float
    layers: tuple[KernelDifference, ...] = ()


class ErrorSplit(Record):
    """The split of one artifact in one executor, and where the executors of the run differ.

    Args:
        run: The run folder.
        target: The target.
        label: The artifact's label.
        executor: What ran the file, ``"LiteRT XNNPACK"``.
        rules: Name of its rounding rules; empty where they are not modelled.
        simulation: How the file was simulated, in words.
        sample_count: Golden samples.
        layers: In program order.
        spreads: Every pair of executors of the run's files.
        notes: What a reader should know.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    run: str
    target: str
    label: str
    executor: str
    rules: str = ""
    simulation: str = ""
    sample_count: int
    layers: tuple[LayerSplit, ...]
    spreads: tuple[KernelSpread, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def explained_share(self) -> float | None:
        """Share of all modelled values that the executor's own rules reproduce; None where none is modelled."""
        rows = [(row.value_count, row.explained_share) for row in self.layers if row.explained_share is not None]
        count = sum(size for size, _ in rows)
        return sum(size * share for size, share in rows) / count if count else None
