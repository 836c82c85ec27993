"""Models that cannot be captured, and operators that nobody can run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result


def test_a_model_that_cannot_be_traced_shows_the_users_own_line(
    refused: Callable[..., str], write_task: Callable[..., Path]
) -> None:
    line = "return self.head(torch.relu(self.conv(x)).mean(-1)) * float(x.max())"
    path = write_task(forward=line)
    message = refused("compress task.py -o runs/x", 3)
    number = path.read_text().splitlines().index(f"        {line}") + 1
    assert f"{path}:{number}: {line}" in message
    assert "torch.where" in message


def test_a_model_that_does_not_fit_its_example_inputs(refused: Callable[..., str], write_task: Callable[..., Path]) -> None:
    write_task(forward="return self.head(self.conv(x))")
    message = refused("compress task.py -o runs/x", 2)
    assert "the model fails on example_inputs" in message
    assert "return self.head(self.conv(x))" in message


def test_nan_in_the_weights(refused: Callable[..., str], write_task: Callable[..., Path]) -> None:
    write_task(init="torch.nn.init.constant_(self.head.weight, float('nan'))")
    message = refused("compress task.py -o runs/x", 2)
    assert "weight 'head.weight' holds 32 values that are NaN or infinite" in message


def test_an_operator_the_target_cannot_take(
    refused: Callable[..., str], command_line: Callable[..., Result], write_task: Callable[..., Path]
) -> None:
    write_task(forward="return torch.linalg.svd(self.conv(x))[1]")
    assert command_line("compress task.py -o runs/svd").exit_code == 0
    message = refused("export runs/svd --target onnx", 3)
    assert "linalg_svd" in message
    assert "ONNX" in message
    assert "move it out of the model" in message
