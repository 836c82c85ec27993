"""Saving and loading torch programs: the one place in the vocabulary that touches torch files.

A ``.pt2`` is a zip that torch may unpickle parts of: load only files whose digest edgekit recorded itself,
or load them in a confined worker.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import IntegrityError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["load_program", "save_program"]


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program as ``.pt2``."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)


def load_program(path: Path) -> ExportedProgram:
    """Read a ``.pt2``.

    Raises:
        IntegrityError: The file is not one torch can read.
    """
    import torch
    import torchao.quantization.pt2e.quantizer  # noqa: F401  registers quantized_decomposed ops

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.load(path)
        except Exception as reason:
            raise IntegrityError(f"{path} is not a program torch {torch.__version__} can read: {reason}") from reason
