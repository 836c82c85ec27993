"""Artifact + inputs -> outputs, one file per runtime.

:func:`load` opens a model file of any format in a confined child:

>>> import edgekit as ek
>>> ek.runtimes.load  # doctest: +ELLIPSIS
<function load at ...>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.runtimes.loading import LoadedModel, load

__all__ = ["LoadedModel", "load"]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562): importing this package imports no runtime."""
    if name not in __all__:
        raise AttributeError(f"module 'edgekit.runtimes' has no attribute '{name}'")
    from edgekit.runtimes import loading

    value = getattr(loading, name)
    globals()[name] = value
    return value
