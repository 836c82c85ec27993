"""Saving and loading torch programs: the one place in the vocabulary that touches torch files.

A ``.pt2`` is a zip that torch may unpickle parts of: load only files whose digest edgekit recorded itself,
or load them in a confined worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import IntegrityError
from edgekit.core.files import write_bytes

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from edgekit.core.tensors import Array

__all__ = ["answer_samples", "load_program", "program_digest", "register_operators", "run_program", "save_program"]


def register_operators() -> None:
    """Make ``torch.ops.quantized_decomposed`` (the Q/DQ operators of PyTorch 2 export) known to torch."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program as ``.pt2``, whole or not at all.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    import torch

    archive = io.BytesIO()  # torch's own writer ends the whole process when the disk is full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, archive)
    write_bytes(path, archive.getvalue())


def load_program(path: Path) -> ExportedProgram:
    """Read a ``.pt2``, without running what a pickle in it says.

    Raises:
        IntegrityError: The file is not one torch can read, or holds objects instead of tensors.
    """
    import torch

    register_operators()
    _refuse_objects(path)
    with warnings.catch_warnings(), _weights_only():
        warnings.simplefilter("ignore")
        try:
            return torch.export.load(path)
        except Exception as reason:
            raise IntegrityError(f"{path} is not a program torch {torch.__version__} can read: {reason}") from reason


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Torch falls back to full unpickling in places where it reads a program; this forbids it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _refuse_objects(path: Path) -> None:
    """Constants that are no tensors would be unpickled whatever torch is told."""
    try:
        with zipfile.ZipFile(path) as archive:
            tables = [name for name in archive.namelist() if "/constants/" in name and name.endswith("_config.json")]
            files = [
                str(one.get("path_name", "")) for table in tables for one in json.loads(archive.read(table))["config"].values()
            ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError, zipfile.BadZipFile) as reason:
        raise IntegrityError(f"{path} is not a program torch can read: {reason}") from reason
    foreign = [name for name in files if not name.startswith("tensor_")]
    if foreign:
        raise IntegrityError(
            f"{path} holds {len(foreign)} objects that are no tensors ('{foreign[0]}'); reading them would run what the"
            " file says. Export a model of plain tensors."
        )


def program_digest(program: ExportedProgram) -> str:
    """What tells a program from every other: sha256 of its graph and of all its numbers (a ``.pt2`` holds time stamps too)."""
    import torch

    digest = hashlib.sha256(str(program.graph).encode())
    for name, value in sorted({**program.state_dict, **program.constants}.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def run_program(program: ExportedProgram, arguments: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Outputs of one call, always as a tuple."""
    return next(_answers(program, [arguments]))


def answer_samples(program: ExportedProgram, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The program's outputs for ``inputs``.

    Args:
        program: The program.
        inputs: Input name -> ``[S, *shape]``, in the program's input order.
        names: Output names in order.

    Returns:
        Output name -> ``[S, *shape]``.
    """
    import numpy as np
    import torch

    count = next(iter(inputs.values())).shape[0]
    samples = ([torch.from_numpy(array)[at] for array in inputs.values()] for at in range(count))  # of a number too
    rows = list(_answers(program, samples))
    return {name: np.stack([row[position].numpy() for row in rows]) for position, name in enumerate(names)}


def _answers(program: ExportedProgram, samples: Iterable[Sequence[torch.Tensor]]) -> Iterator[tuple[torch.Tensor, ...]]:
    import torch

    module = program.module(check_guards=False)
    with torch.no_grad():
        for arguments in samples:
            result = module(*arguments)
            yield tuple(result) if isinstance(result, tuple | list) else (result,)
