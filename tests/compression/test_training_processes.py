"""Two processes, as ``accelerate launch`` begins them, take the steps that one takes, each on half of the rows."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.compression.training.processes import take_rows
from edgekit.core.errors import DataError

SCRIPT = """
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.compression.training.callbacks import Callback
from edgekit.compression.training.loop import train
from edgekit.core.task import Task
from edgekit.core.training import Training

SIGNALS = np.random.default_rng(0).standard_normal((65, 6)).astype(np.float32)
CLASSES = (SIGNALS[:, 0] > 0).astype(np.int64)


def training():
    for chosen in torch.randperm(65).split(16):  # the last batch has one row
        yield torch.from_numpy(SIGNALS[chosen]) + 0.1 * torch.randn(len(chosen), 6), CLASSES[chosen]


class Stop(Callback):
    def on_epoch(self, report):
        return report.epoch < 3


def fit(work, extra=(), data=training):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), *extra, nn.ReLU(), nn.Linear(8, 2))
    validation = [(SIGNALS[:40], CLASSES[:40])] * 3
    task = Task(name="signs", model=net, example_inputs=SIGNALS[:1], training=data, validation=validation)
    plan = Training(epochs=4, learning_rate=1e-2, ema=0.9, keep="best")
    said = []
    trained = train(net, task, plan, work=work, callbacks=[Stop()], progress=lambda *words: said.append(words))
    state = {name: tensor.tolist() for name, tensor in net.state_dict().items()}
    scores = [report.validation for report in trained.epochs]
    return {"losses": list(trained.losses), "scores": scores, "state": state}, len(said)


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Path(__file__).parent
    whole = [(torch.from_numpy(SIGNALS[:64]).reshape(4, 16, 6)[at].numpy(), CLASSES[:64].reshape(4, 16)[at]) for at in range(4)]
    found = [fit(here / "plain"), fit(here / "norm", (nn.BatchNorm1d(8), nn.Dropout(0.1)), whole)]
    (here / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
"""


def launch(script: Path, *, count: int) -> list[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
    return [json.loads((script.parent / f"{rank}.json").read_text()) for rank in range(count)]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    alone, said = runpy.run_path(str(script))["fit"](None)
    (plain, said_first), (norm, _) = launch(script, count=2)[0]
    assert launch_results(tmp_path, 1) == [plain, norm]
    assert (said, said_first) == (15, 15) and len((tmp_path / "plain" / "metrics.jsonl").read_text().splitlines()) == 3
    assert plain["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert plain["scores"] == pytest.approx(alone["scores"])
    for name, value in alone["state"].items():
        np.testing.assert_allclose(plain["state"][name], value, atol=1e-5)
    assert norm["losses"][-1] < norm["losses"][0]


def launch_results(folder: Path, rank: int) -> list[Any]:
    """What another process ended with; it shows no progress."""
    found = json.loads((folder / f"{rank}.json").read_text())
    assert [said for _, said in found] == [0, 0]
    return [result for result, _ in found]


def test_targets_are_shared_out_by_rows_or_not_at_all() -> None:
    targets = {"box": torch.arange(8).reshape(4, 2), "kind": (torch.arange(4), None)}
    found = take_rows(targets, slice(2, 4), where="batch 0")
    assert found["box"].tolist() == [[4, 5], [6, 7]] and found["kind"][0].tolist() == [2, 3] and found["kind"][1] is None
    with pytest.raises(DataError, match=r"batch 0: targets hold a str, which cannot be shared out among processes"):
        take_rows(["a", "b"], slice(0, 1), where="batch 0")
