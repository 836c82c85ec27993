"""Does a package that was converted with ``--compute-precision auto`` answer as its program does, in float16?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit import registry
from edgekit.core.errors import ConversionError

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["check_half"]

_REFERENCE = "coreml-reference"
_FLOAT_LIMIT = 0.02
"""Relative error (2-norm) of the outputs of a float program: 11 bits in each of a hundred layers leave less than a hundredth."""
_GRID_LIMIT = 0.2
"""The same with activations on a grid, where a value rounded in float16 can move to the next step."""


def check_half(artifact: Artifact, state: Compressed) -> Artifact:
    """Run the package with its float16 values rounded, and return its artifact with what was found among the notes.

    Args:
        artifact: Just made.
        state: The program it was made from.

    Raises:
        ConversionError: An output is not finite, or too far from the program's.
    """
    if artifact.target != "coreml" or artifact.options.compute_precision != "auto":
        return artifact
    import numpy as np

    session = registry.runtime(_REFERENCE).load(artifact.path)
    golden, limit = state.golden, _GRID_LIMIT if state.contract.activations else _FLOAT_LIMIT
    count = len(next(iter(golden.inputs.values())))
    worst = 0.0
    for at in range(count):
        fed = {spec.name: golden.inputs[spec.name][at].astype(spec.dtype) for spec in artifact.inputs}
        answers = session.run(fed)
        for name, expected in golden.outputs.items():
            if name in answers and np.isfinite(expected[at]).all():
                worst = max(worst, _relative(answers[name], expected[at]))
    session.close()
    if not worst <= limit:
        found = (
            "is not finite"
            if worst == float("inf")
            else f"differs by {worst:.2g} of its size (2-norm); at most {limit:g} is allowed"
        )
        raise ConversionError(
            f"'{state.name}' cannot compute in float16, even with the operators in float32 whose values do not fit: an output"
            f" {found} on the golden inputs. Export with --compute-precision float32."
        )
    note = (
        f"float16 checked with edgekit's reference executor on {count} golden samples: the outputs differ by {worst:.2g} of their"
        f" size at most (2-norm; {limit:g} allowed)."
    )
    return artifact.replace(notes=(*artifact.notes, note))


def _relative(found: Array, expected: Array) -> float:
    import numpy as np

    if expected.dtype.kind != "f":
        return float(np.mean(found != expected)) if expected.size else 0.0
    difference = float(np.linalg.norm(found.astype(np.float64).reshape(-1) - expected.astype(np.float64).reshape(-1)))
    return difference / (float(np.linalg.norm(expected.astype(np.float64))) or 1.0) if np.isfinite(difference) else float("inf")
