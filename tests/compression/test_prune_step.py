"""The pruning step: goals, alignment, criteria, what is trained, what was measured, and every way it can be asked wrongly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.prune.align import aligned, multiple_for, wanted_multiple
from edgekit.compression.prune.step import prune
from edgekit.core import entry_points
from edgekit.core.compressed import Compressed, StepRecord
from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import DataError, PruningError, RecipeError, UsageError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.plugins import silent
from edgekit.core.program_cost import count_macs
from edgekit.core.pruning import Prune
from edgekit.core.recipe import Recipe
from edgekit.core.stages import TimedProgram
from edgekit.core.task import Task
from edgekit.core.training import Training

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.standard_normal((96, 3, 8, 8), dtype=np.float32)
LABELS = (INPUTS[:, 0].mean((1, 2)) > 0).astype(np.int64)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(48, 64, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


def batches() -> Any:
    for start in range(0, len(INPUTS), 32):
        yield INPUTS[start : start + 32], LABELS[start : start + 32]


def make_task(**changes: Any) -> Task:
    fields = {"name": "net", "model": Net, "example_inputs": INPUTS[:1], "calibration": [INPUTS[:32]], "training": batches}
    return Task(**(fields | changes))


def run(
    step: Prune, task: Task | None = None, *, work: Path | None = None, bench: Any = None
) -> tuple[Compressed, Compressed, StepRecord]:
    task = task or make_task()
    state = capture(task, recipe=Recipe.read("none"))
    return (state, *prune(state, step=step, task=task, progress=silent, work=work, bench=bench))


def bare(ratio: float | None = 0.5, **changes: Any) -> Prune:
    return Prune(ratio=ratio, **({"recover": False, "align": 1} | changes))


@pytest.mark.parametrize("scope", ["global", "layer", "sensitivity"])
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_the_goal_is_reached_and_hardly_passed(scope: str, ratio: float) -> None:
    state, result, record = run(bare(ratio, scope=scope))
    gone = 1 - count_macs(result.program) / count_macs(state.program)
    assert ratio <= gone < ratio + 0.04
    assert record.details["ratio"] == pytest.approx(gone, abs=0.01)
    assert result.float_program is state.float_program


@pytest.mark.parametrize("goal", ["parameters", "size", "channels"])
def test_other_goals(goal: str) -> None:
    state, result, record = run(bare(0.4, goal=goal))
    if goal == "channels":
        assert all(before * 0.55 <= after <= before * 0.65 for before, after in record.details["channels"].values())
    else:
        assert 0.56 <= record.details["parameters_after"] / record.details["parameters_before"] <= 0.6
    assert state.module is not None
    assert state.module.first[0].out_channels == 48  # what the steps before made is not changed
    assert result.module is not state.module


def test_channels_are_multiples_of_what_the_target_wants() -> None:
    _, _, record = run(bare(0.5, align=None))
    assert record.details["align"] == wanted_multiple("onnx") == 16
    assert {after % 16 for _, after in record.details["channels"].values()} == {0}
    assert wanted_multiple("a plug-in's target") == 1
    assert multiple_for(20, 16) == 4  # a small layer keeps a choice
    assert aligned(1, units=4, unit_width=8, multiple=16, most=3) == 1  # four heads of eight channels
    assert aligned(60, units=64, unit_width=1, multiple=16, most=57) == 48


@pytest.mark.parametrize("name", entry_points.names("criteria"))
def test_every_criterion(name: str) -> None:
    _, result, record = run(bare(0.4, criterion=name))
    assert record.details["criterion"] == name
    assert record.details["macs_after"] < record.details["macs_before"]
    assert result.golden.outputs["output"].shape[-1] == 2


@pytest.mark.parametrize("name", sorted(set(entry_points.names("criteria")) - {"random", "fpgm"}))
def test_criteria_take_the_channels_that_do_nothing(name: str) -> None:
    class Idle(Net):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.first[0].weight[::2] *= 1e-3
                self.first[1].weight[::2] *= 1e-3
                self.second[0].weight[:, ::2] *= 1e-3

    _, result, _ = run(bare(0.45, criterion=name, keep=("second",)), make_task(model=Idle))
    assert result.module is not None
    assert int((result.module.first[1].weight.detach() > 0.5).sum()) == 24  # all that do something stay


def test_fpgm_takes_one_of_two_that_are_the_same() -> None:
    class Double(Net):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.first[0].weight[1:24] = self.first[0].weight[:1]

    _, result, _ = run(bare(0.3, criterion="fpgm", keep=("second",)), make_task(model=Double))
    assert result.module is not None
    weights = result.module.first[0].weight.detach().flatten(1)
    same = ((weights[:, None] - weights[None]).abs().amax(2) == 0).sum(1)
    assert int((same > 1).sum()) < 12
    assert int((same == 1).sum()) == 24  # all that are like no other stay


def test_it_is_trained_in_rounds_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    step = Prune(ratio=0.5, rounds=2, align=1, training=Training(epochs=2, learning_rate=1e-2))
    state, result, record = run(step, work=tmp_path)
    assert len(record.details["losses"]) == 2
    gone = 1 - count_macs(result.program) / count_macs(state.program)
    assert gone == pytest.approx(0.5, abs=0.04)
    _, again, _ = run(step, work=tmp_path)  # finds both rounds' checkpoints
    _, anew, _ = run(step)
    weights = [one.program.state_dict for one in (result, again, anew)]
    for other in weights[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights[0].items())


def test_without_training_batch_norms_take_the_statistics_of_what_is_left() -> None:
    _, result, record = run(bare(0.5))
    net = result.module
    assert net is not None
    seen = net.first[0](torch.from_numpy(INPUTS[:32])).mean((0, 2, 3))
    assert torch.allclose(net.first[1].running_mean, seen, atol=1e-5)
    assert record.details["losses"] == []


class FakeBench:
    """A runtime that takes ``fixed`` ms and a millisecond for each ``macs_per_ms``, and likes multiples of ``likes``."""

    def __init__(self, *, macs_per_ms: float, likes: int = 1, always_slower: bool = False) -> None:
        self.macs_per_ms, self.likes, self.always_slower, self.calls = macs_per_ms, likes, always_slower, 0

    def size_bytes(self, state: Compressed, *, target: str) -> int:
        return 100_000 + 4 * sum(tensor.numel() for tensor in state.program.state_dict.values())

    def _latency(self, state: Compressed) -> float:
        widths = [tensor.shape[0] for name, tensor in state.program.state_dict.items() if name.endswith("0.weight")]
        odd = any(width % self.likes for width in widths)
        dense = count_macs(state.program) == count_macs(state.float_program)
        return count_macs(state.program) / self.macs_per_ms * (3 if odd or (self.always_slower and not dense) else 1)

    def time(self, states: Mapping[str, Compressed], *, target: str, device: str) -> dict[str, TimedProgram]:
        self.calls += 1
        first = self._latency(next(iter(states.values())))
        found = {}
        for label, state in states.items():
            value = self._latency(state)
            latency = Measurement(name="latency", value=value, unit="ms", evidence=Evidence.MEASURED)
            speedup = first / value
            interval = (speedup * 0.98, speedup * 1.02)
            found[label] = TimedProgram(
                target=target, device=device, latency=latency, size_bytes=1, speedup=speedup, speedup_interval=interval
            )
        return found


def dense_macs() -> int:
    return count_macs(capture(make_task(), recipe=Recipe.read("none")).program)


def test_a_latency_is_met_with_as_little_pruning_as_it_takes(tmp_path: Path) -> None:
    bench = FakeBench(macs_per_ms=dense_macs() / 10)  # dense: 10 ms
    step = Prune(latency_ms=6, recover=False, align=1)
    state, result, record = run(step, work=tmp_path, bench=bench)
    took = 10 * count_macs(result.program) / count_macs(state.program)
    assert 5.4 < took <= 6.0
    assert "ms of at most 6 ms on host (measured)" in record.summary
    resumed = FakeBench(macs_per_ms=1.0)  # would decide otherwise, if it were asked
    _, again, _ = run(step, work=tmp_path, bench=resumed)
    assert resumed.calls == 0
    assert count_macs(again.program) == count_macs(result.program)


def test_the_size_that_goes_is_the_converted_files() -> None:
    bench = FakeBench(macs_per_ms=1e5)
    state, result, _ = run(bare(0.3, goal="size"), bench=bench)
    share = bench.size_bytes(result, target="onnx") / bench.size_bytes(state, target="onnx")
    assert 0.66 < share <= 0.7


def test_a_latency_the_dense_file_meets_prunes_nothing() -> None:
    state, result, record = run(Prune(latency_ms=20, recover=False), bench=FakeBench(macs_per_ms=dense_macs() / 10))
    assert result is state
    assert "nothing was pruned" in record.summary


def test_latencies_that_cannot_be() -> None:
    with pytest.raises(PruningError, match=r"0\.01 ms cannot be reached: dense, the onnx file runs in 10 ms on host"):
        run(Prune(latency_ms=0.01, recover=False), bench=FakeBench(macs_per_ms=dense_macs() / 10))
    with pytest.raises(RecipeError, match="nothing can be measured here"):
        run(Prune(latency_ms=3, recover=False))


def test_a_file_that_is_slower_is_aligned_more_coarsely_or_left_dense() -> None:
    _, _, record = run(bare(0.5), bench=FakeBench(macs_per_ms=1e5, likes=16))
    assert "channels are multiples of 16 instead" in record.summary
    assert {after % 16 for _, after in record.details["channels"].values()} == {0}
    state, result, record = run(bare(0.5), bench=FakeBench(macs_per_ms=1e5, always_slower=True))
    assert result is state
    assert "the net was left dense" in record.summary
    _, result, record = run(bare(0.5, never_slower=False), bench=FakeBench(macs_per_ms=1e5, always_slower=True))
    assert record.details["macs_after"] < record.details["macs_before"]


def test_ratios_out_of_range_in_words() -> None:
    with pytest.raises(RecipeError, match=r"'prune0'.*ratio.*greater than 0"):
        Recipe.read("prune0")
    with pytest.raises(RecipeError, match=r"'prune100'.*ratio.*less than 1"):
        Recipe.read("prune100")


def test_goals_that_cannot_be_reached_say_what_binds() -> None:
    with pytest.raises(PruningError, match=r"Pruning 95% of the MACs cannot be reached.*largest_ratio=0.5 \(without it: \d+%"):
        run(bare(0.95, largest_ratio=0.5))
    with pytest.raises(PruningError, match=r"keep=\['second'\]; channels that stay \(.*an output of the net"):
        run(bare(0.99, keep=("second",)))
    with pytest.raises(PruningError, match=r"at most 87.7% can go.*align=32 \(with align=1: 91%\)"):
        run(bare(0.9, align=32, largest_ratio=0.75))


def test_a_net_where_nothing_can_go_says_why() -> None:
    task = make_task(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    with pytest.raises(PruningError, match=r"Nothing in task 'net' can be pruned\. 1: its channels are an output of the net"):
        run(bare(), task)


def test_wrong_orders_and_missing_parts() -> None:
    with pytest.raises(RecipeError, match=r"no goal. Write how much goes \('prune50'\)"):
        run(Prune(recover=False))
    with pytest.raises(UsageError, match=r"Unknown pruning criterion 'taylr'.*Did you mean 'taylor'"):
        run(bare(criterion="taylr"))
    with pytest.raises(DataError, match=r"Give Task\(\.\.\., training=\.\.\.\).*recover=false"):
        run(Prune(ratio=0.5), make_task(training=None))
    with pytest.raises(DataError, match="Criterion 'taylor' needs gradients"):
        run(bare(criterion="taylor"), make_task(training=None))
    task = make_task()
    quantized = dataclasses.replace(capture(task, recipe=Recipe.read("none")), module=None, contract=QuantizationContract())
    with pytest.raises(RecipeError, match="'prune50' stands after quantization; put it before"):
        prune(quantized, step=bare(), task=task, progress=silent, work=None, bench=None)
