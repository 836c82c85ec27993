"""Weights an example trained itself: kept beside the assets, under a name that changes with the code that made them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import assets
import torch
from torch import nn


def load_or_train(build: Callable[[], nn.Module], train: Callable[[], nn.Module], *, folder: Path, threads: int) -> nn.Module:
    """The trained model in eval mode: stored weights if there are any for this code, else trained now and stored.

    Args:
        build: Makes the untrained model.
        train: Makes and trains the model.
        folder: The example's folder: when its ``data.py``, ``model.py`` or ``train.py`` changes, the model is trained again.
        threads: Threads to train with; another number gives slightly other weights.
    """
    path = weights_path(folder)
    if path.is_file():
        model = build()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    print(f"{folder.name}: no trained weights for this code yet, training once", file=sys.stderr, flush=True)
    with reproducible(seed=0, threads=threads):
        model = train().eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(model.state_dict(), temporary)
    temporary.replace(path)
    return model


def weights_path(folder: Path) -> Path:
    """Where the weights lie that the example's present code trains."""
    digest = hashlib.sha256()
    for name in ("data.py", "model.py", "train.py"):
        digest.update((folder / name).read_bytes())
    return assets.assets_folder() / "trained" / f"{folder.name}-{digest.hexdigest()[:12]}.pt"


def report_progress(what: str, epoch: int, epochs: int, loss: float, seconds: float) -> None:
    """One line on stderr after an epoch, so that stdout stays free for results."""
    print(f"{what}: epoch {epoch} of {epochs}, loss {loss:.3f}, {seconds:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def reproducible(*, seed: int, threads: int) -> Iterator[None]:
    """Fix torch's seed and its thread count (a sum depends on how it is divided), and restore both afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
