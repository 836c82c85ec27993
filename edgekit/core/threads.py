"""How many threads numeric libraries may start."""

from __future__ import annotations

__all__ = ["thread_limits"]

_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


def thread_limits(threads: int) -> dict[str, str]:
    """Environment that keeps numeric libraries to ``threads`` threads, whatever the runtime's own setting does."""
    return dict.fromkeys(_VARIABLES, str(threads))
