"""Checkpoints (``.pt``, ``.pth``, ``.safetensors``): weights that need the net they belong to.

A checkpoint of ``torch.save`` is a pickle. Tensors, numbers and names are read without running any of it
(``weights_only=True``); a pickled net is refused unless the user vouches for the file.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.sources.archives import check_archive
from edgekit.core.errors import ConversionError, IntegrityError, TaskError, UsageError, nearest
from edgekit.core.file_kinds import CHECKPOINT, SAFETENSORS, kind_of
from edgekit.core.source import ImportedModel, SourceOptions, read_samples, settle_inputs
from edgekit.core.task import execute_file

if TYPE_CHECKING:
    import torch

__all__ = ["SOURCE", "CheckpointSource"]

_INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
"""Where training scripts put the weights in a checkpoint that also holds an optimizer."""
_SHOWN = 4


class CheckpointSource:
    """Weights, and the function that builds their net."""

    name = "checkpoint"
    extra = ""
    modules = ("torch",)
    hides = ("tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "jax")

    def recognises(self, path: Path) -> bool:
        """Whether the file was written by ``torch.save`` or safetensors."""
        if not path.is_file():
            return False
        kind = kind_of(path)
        return kind in {CHECKPOINT, SAFETENSORS} and kind is not None and path.suffix in kind.suffixes

    def read(self, path: Path, *, options: SourceOptions) -> ImportedModel:
        """Build the net, load the weights into it, and trace it.

        Raises:
            IntegrityError: The file is damaged, or a pickle that nobody vouches for.
            UsageError: The factory or shapes are missing.
            ConversionError: Weights and net do not belong together.
        """
        from edgekit.converters.sources.trace import forward_inputs, output_specs, trace_module

        found = _read_weights(path, trust_pickle=options.trust_pickle)
        module = _module(path, found, options).eval()
        inputs, notes = settle_inputs(forward_inputs(module), options=options, where=str(path))
        program, names = trace_module(module, inputs, where=str(path))
        outputs = output_specs(program, program.example_inputs[0] if program.example_inputs else (), names)
        return ImportedModel(
            program=program, inputs=inputs, outputs=outputs, samples=read_samples(options, inputs), notes=tuple(notes)
        )


SOURCE = CheckpointSource()


def _read_weights(path: Path, *, trust_pickle: bool) -> Any:
    import torch

    kind = kind_of(path)
    if kind is SAFETENSORS:
        return _read_safetensors(path)
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            check_archive(path)
    if trust_pickle:
        sys.path.append(str(path.parent))  # the file of the net's class, where it lies beside
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as reason:
        raise IntegrityError(_refusal(path, reason)) from reason
    except Exception as reason:
        first = next((line.strip() for line in str(reason).splitlines() if line.strip()), "")
        raise IntegrityError(
            f"{path} is not a checkpoint torch {torch.__version__} can read: {type(reason).__name__}: {first}"
        ) from reason


def _refusal(path: Path, reason: Exception) -> str:
    words = str(reason).partition("GLOBAL ")[2].split()
    what = f" an object of {words[0]}" if words else " more than tensors"
    return (
        f"{path} holds{what}. Python builds such objects by running what the file says, and a pickle can say anything: delete"
        " files, send them away, install programs. edgekit does not read it. Save the weights alone"
        " (torch.save(model.state_dict(), path), or safetensors) and give the function that builds the net"
        " (--factory FILE.py:FUNCTION), or save the program with torch.export.save. If you made this file yourself:"
        " --trust-pickle (in Python trust_pickle=True)."
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as reason:
        raise UsageError(
            "'safetensors' is not installed, and this needs it. Install it with: pip install safetensors"
        ) from reason
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except Exception as reason:
        raise IntegrityError(
            f"{path} is no safetensors file: {reason}. It may have been cut off while it was copied."
        ) from reason
    return weights


def _module(path: Path, found: Any, options: SourceOptions) -> torch.nn.Module:
    import torch

    if isinstance(found, torch.nn.Module):
        return found
    weights = _weights_of(path, found)
    if not options.factory:
        raise UsageError(
            f"{path} holds {len(weights)} weights ({', '.join(list(weights)[:_SHOWN])}…) and not the net they belong to. Give the"
            " function that builds it: --factory FILE.py:FUNCTION (in Python factory='FILE.py:FUNCTION')."
        )
    module = _built(options.factory)
    _check_keys(module.state_dict(), weights, path=path, factory=options.factory)
    module.load_state_dict(weights, strict=False)  # what is missing by now is a counter of batch norms
    return module


def _weights_of(path: Path, found: Any) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(found, Mapping):
        if found and all(isinstance(value, torch.Tensor) for value in found.values()):
            return {str(name).removeprefix("module."): value for name, value in found.items()}
        for name in _INSIDE:
            inner = found.get(name)
            if isinstance(inner, Mapping) and inner and all(isinstance(value, torch.Tensor) for value in inner.values()):
                return {str(key).removeprefix("module."): value for key, value in inner.items()}
        kinds = ", ".join(f"'{key}' ({type(value).__name__})" for key, value in list(found.items())[:_SHOWN])
        raise IntegrityError(f"{path} holds no weights: it is a dictionary of {kinds or 'nothing'}. Save model.state_dict().")
    raise IntegrityError(f"{path} holds a {type(found).__name__}, no weights. Save model.state_dict().")


def _built(factory: str) -> torch.nn.Module:
    import torch

    file, _, name = factory.rpartition(":")
    if not file or not name:
        raise UsageError(f"'{factory}' names no function: write --factory FILE.py:FUNCTION.")
    if not Path(file).is_file():
        raise UsageError(f"{file} does not exist; --factory names the Python file of the net and a function in it.")
    defined = execute_file(Path(file))
    function = getattr(defined, name, None)
    if not callable(function):
        known = [key for key, value in vars(defined).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{file} defines no function '{name}'.{nearest(name, known)}")
    try:
        made = function()
    except Exception as reason:
        raise TaskError(f"{factory} failed: {type(reason).__name__}: {reason}") from reason
    if not isinstance(made, torch.nn.Module):
        raise TaskError(f"{factory} returned a {type(made).__name__}, not an nn.Module.")
    return made


def _check_keys(wanted: Mapping[str, Any], given: Mapping[str, Any], *, path: Path, factory: str) -> None:
    """Every weight the net has must be in the file, of its shape, and none besides."""
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted]
    bent = [name for name in wanted if name in given and wanted[name].shape != given[name].shape]
    complaints = []
    if missing:
        pairs = [
            f"'{name}'" + (nearest(name, unknown).replace("Did you mean", "nearest in the file is").rstrip("?"))
            for name in missing
        ]
        complaints.append(f"{len(missing)} weights of the net are missing: {', '.join(pairs[:_SHOWN])}.")
    if unknown:
        complaints.append(f"{len(unknown)} weights in the file belong to no layer: {', '.join(unknown[:_SHOWN])}.")
    complaints += [
        f"'{name}' is {list(given[name].shape)} in the file and {list(wanted[name].shape)} in the net." for name in bent[:_SHOWN]
    ]
    if complaints:
        raise ConversionError(
            f"{path} does not fit the net that {factory} builds. {' '.join(complaints)}"
            " Build the net the weights were trained in."
        )
