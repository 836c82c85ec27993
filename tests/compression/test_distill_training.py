"""Distillation from Python: what a student learns, what is found before training, what is kept and gone on from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit as ek
from edgekit.compression.distill.objective import DistillationObjective
from edgekit.compression.distill.teacher_cache import TeacherCache
from edgekit.compression.training.objective import TrainingBatch
from edgekit.core.errors import DataError, IntegrityError, RecipeError, TaskError
from edgekit.core.task import Task

INPUTS = np.random.default_rng(0).standard_normal((144, 2, 12)).astype(np.float32)
CLASSES = (INPUTS[:, 0].sum(1) > 0).astype(np.int64) + (INPUTS[:, 1].sum(1) > 0)
QUICK = ek.Training(epochs=3, learning_rate=1e-2)


class Net(nn.Module):
    """Convolution, pooling, classes; counts its calls."""

    def __init__(self, width: int, *, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, width, 3, padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.unused = nn.Identity()
        self.head = nn.Linear(width, classes)
        self.calls: list[int] = []

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(signal))
        return self.head(self.norm(self.conv(signal)).relu().mean(2))

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        twin = type(self)(len(self.conv.bias), classes=len(self.head.bias))  # type: ignore[arg-type]
        twin.load_state_dict(self.state_dict())
        twin.calls = self.calls  # the copy's calls are counted here
        return twin.train(self.training)


def net(width: int, *, seed: int = 0, classes: int = 3) -> Net:
    torch.manual_seed(seed)
    return Net(width, classes=classes)


def shuffled() -> Iterator[tuple[Any, Any]]:
    """Four batches a pass of 128 of 144 samples: the rest is dropped."""
    for chosen in torch.randperm(144)[:128].split(32):
        yield INPUTS[chosen], CLASSES[chosen]


def augmented() -> Iterator[tuple[Any, Any]]:
    for inputs, classes in shuffled():
        yield inputs + np.float32(0.1) * torch.randn(inputs.shape).numpy(), classes


def make_task(**changes: Any) -> Task:
    fields: dict[str, Any] = {"name": "signs", "model": net(4), "example_inputs": INPUTS[:1], "training": shuffled}
    return Task(**(fields | changes))


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def test_a_student_comes_to_answer_like_its_teacher_without_any_label() -> None:
    teacher, student = net(8, seed=1).eval(), net(4, seed=2).eval()
    with torch.no_grad():
        teacher.head.weight.mul_(4)
    task = make_task(training=[(INPUTS[:64], None), (INPUTS[64:], None)])
    training = ek.Training(epochs=40, learning_rate=3e-2)
    taught = ek.distill(teacher, student, task, losses=[ek.LogitsMSE()], task_weight=0, training=training)

    def distance(model: nn.Module) -> float:
        with torch.no_grad():
            return nn.functional.mse_loss(model(torch.from_numpy(INPUTS)), teacher(torch.from_numpy(INPUTS))).item()

    assert distance(taught) < 0.3 * distance(student)


def test_the_nets_that_are_given_are_not_touched() -> None:
    teacher, student = net(8, seed=1).train(), net(4, seed=2)
    before = weights(teacher), weights(student)
    losses = [ek.KD(), ek.FeatureMatch({"conv": "conv"}), ek.AttentionTransfer({"norm": "norm"}), ek.RKD(), ek.CRD(embedding=8)]
    taught = ek.distill(teacher, student, make_task(), losses=losses, training=QUICK)
    assert all(map(torch.equal, before[0], weights(teacher))) and teacher.training
    assert all(map(torch.equal, before[1], weights(student)))
    assert not all(map(torch.equal, before[1], weights(taught))) and not taught.training
    assert list(taught.state_dict()) == list(student.state_dict())  # no adapter stays
    assert not any(module._forward_hooks for model in (teacher, taught) for module in model.modules())


def test_the_total_is_the_weighted_sum_of_named_terms() -> None:
    task, student = make_task(), net(4, seed=2)
    losses = [ek.KD(weight=2), ek.LogitsMSE(weight=0.5), ek.KD(temperature=1)]
    objective = DistillationObjective(student, [net(8, seed=1)], task, losses, task_weight=0.25)
    batch = TrainingBatch({"signal": torch.from_numpy(INPUTS[:32])}, torch.from_numpy(CLASSES[:32]), index=0, epoch=0)
    terms = {name: value.item() for name, value in objective(student, batch).items()}
    expected = 0.25 * terms["task"] + 2 * terms["kd"] + 0.5 * terms["logits-mse"] + terms["kd-2"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-6)
    assert terms["kd"] != terms["kd-2"]


def test_several_teachers_are_averaged_by_their_shares() -> None:
    task, student, teachers = make_task(), net(4, seed=2).eval(), [net(8, seed=1), net(6, seed=3)]
    batch = TrainingBatch({"signal": torch.from_numpy(INPUTS[:32])}, None, index=0, epoch=0)

    def value(chosen: list[Net], shares: list[float] | None = None) -> float:
        losses = [ek.KD(), ek.FeatureMatch({"conv": "conv"})]
        objective = DistillationObjective(student, chosen, task, losses, task_weight=0, teacher_weights=shares)
        return objective(student, batch)["kd"].item()

    alone = [value([teacher]) for teacher in teachers]
    assert value(teachers) == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert value(teachers, [3, 1]) == pytest.approx(0.75 * alone[0] + 0.25 * alone[1], rel=1e-5)
    with pytest.raises(RecipeError, match="one weight above zero for each of 2 teachers"):
        value(teachers, [1.0])
    with pytest.raises(RecipeError, match="needs a teacher, found none"):
        ek.distill([], student, task)


@pytest.mark.parametrize(
    ("losses", "error", "words"),
    [
        (
            [ek.FeatureMatch({"covn": "conv"})],
            RecipeError,
            r"student has no layer 'covn'\. Did you mean 'conv'\? It has conv,",
        ),
        ([ek.FeatureMatch({"conv": "conv2"})], RecipeError, r"teacher has no layer 'conv2'\. Did you mean 'conv'"),
        ([ek.RKD({"unused": "conv"})], RecipeError, r"'unused' of the student is never called"),
        (
            [ek.FeatureMatch({"conv": "head"})],
            TaskError,
            r"'conv' of the student returns \[1, 4, 12\], layer 'head'",
        ),
        ([ek.KD()], TaskError, r"the student answers \[1, 3\], the teacher \[1, 5\]"),
    ],
)
def test_what_does_not_fit_is_found_before_training(losses: list[Any], error: type[Exception], words: str) -> None:
    def training() -> Iterator[Any]:
        pytest.fail("training has begun")
        yield

    with pytest.raises(error, match=words):
        ek.distill(net(8, classes=5), net(4), make_task(training=training), losses=losses)


def test_a_teacher_that_takes_other_inputs_is_named() -> None:
    with pytest.raises(TaskError, match=r"the teacher fails on example_inputs\. RuntimeError"):
        ek.distill(nn.Conv1d(5, 3, 1), net(4), make_task())


def test_a_loss_that_is_no_number_stops_training_and_says_where() -> None:
    teacher = net(8)
    with torch.no_grad():
        teacher.head.bias.fill_(torch.inf)
    with pytest.raises(TaskError, match=r"epoch 1, batch 1: the loss is inf"):
        ek.distill(teacher, net(4), make_task(), losses=[ek.LogitsMSE()], training=QUICK)


def samples_asked(teacher: Net, **options: Any) -> int:
    """Samples a teacher was given in training, without the one example before it."""
    ek.distill(teacher, net(4, seed=2), options.pop("task", make_task()), training=QUICK, **options)
    return sum(teacher.calls) - 1


def test_the_teacher_answers_each_sample_once_though_they_are_shuffled() -> None:
    assert samples_asked(net(8)) <= 144
    assert samples_asked(net(8), cached=False) == 3 * 128
    assert samples_asked(net(8), losses=[ek.KD(), ek.RKD({"conv": "conv"})]) == 3 * 128  # features are not kept


def test_kept_answers_train_as_well_as_fresh_ones() -> None:
    kept, fresh = (ek.distill(net(8), net(4, seed=2), make_task(), training=QUICK, cached=cached) for cached in (True, False))
    for a, b in zip(weights(kept), weights(fresh), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_augmented_inputs_are_noticed() -> None:
    task = make_task(training=augmented)
    assert samples_asked(net(8), task=task) == 3 * 128
    with pytest.raises(DataError, match=r"cached = true.*of epoch 2 are new\. Remove the random augmentation"):
        samples_asked(net(8), task=task, cached=True)


def test_features_cannot_be_asked_to_be_kept() -> None:
    with pytest.raises(RecipeError, match="cached = true, but losses on features need the teacher's layers"):
        ek.distill(net(8), net(4), make_task(), losses=[ek.RKD({"conv": "conv"})], cached=True)


def test_answers_that_take_too_much_room_are_let_go() -> None:
    cache, asked = TeacherCache(largest_bytes=100), []

    def ask(inputs: Any) -> list[dict[str, torch.Tensor]]:
        asked.append(len(inputs["x"]))
        return [{"output": inputs["x"]}]

    for epoch in range(2):
        cache.answers(TrainingBatch({"x": torch.arange(40.0)[:, None]}, None, index=0, epoch=epoch), ask)
    assert asked == [40, 40] and "MiB" in cache.given_up


@pytest.mark.parametrize("stop_after", [2, 6])
def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path: Path, stop_after: int) -> None:
    """With adapters, a bank of contrasts and kept answers: all of them must come back."""
    losses = [ek.KD(), ek.CRD(embedding=8, negatives=64)]

    def run(work: Path | None, stop: int | None = None) -> list[torch.Tensor]:
        def progress(what: str, done: int, total: int | None) -> None:
            if done == stop:
                raise KeyboardInterrupt

        return weights(
            ek.distill(net(8), net(4, seed=2), make_task(), losses=losses, training=QUICK, work=work, progress=progress)
        )

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after)
    assert all(map(torch.equal, run(tmp_path), whole))


def test_kept_answers_come_back_from_their_files(tmp_path: Path) -> None:
    def ask(inputs: Any) -> list[dict[str, torch.Tensor]]:
        return [{"output": 2 * inputs["x"]}, {"a": inputs["x"], "b": -inputs["x"]}]

    def batch(start: int, epoch: int = 0) -> TrainingBatch:
        return TrainingBatch({"x": torch.arange(start, start + 4.0)[:, None]}, None, index=0, epoch=epoch)

    first = TeacherCache(folder=tmp_path)
    first.answers(batch(0), ask)
    early = first.state()
    first.answers(batch(4), ask)
    late = first.state()

    again = TeacherCache(folder=tmp_path)
    again.load(late)
    (output, pair) = again.answers(batch(2, epoch=1), lambda _: pytest.fail("asked again"))
    assert output["output"].flatten().tolist() == [4, 6, 8, 10] and pair["b"].flatten().tolist() == [-2, -3, -4, -5]
    again.load(early)
    asked: list[int] = []
    again.answers(batch(2), lambda inputs: asked.append(len(inputs["x"])) or ask(inputs))
    assert asked == [2]
    next(tmp_path.glob("answers-*4.npz")).write_bytes(b"torn")
    with pytest.raises(IntegrityError, match=r"answers-000000004.npz.*cannot be read"):
        again.load(late)


def test_another_teacher_is_another_job(tmp_path: Path) -> None:
    ek.distill(net(8), net(4), make_task(), training=QUICK, work=tmp_path)
    with pytest.raises(RecipeError):
        ek.distill(net(8, seed=5), net(4), make_task(), training=QUICK, work=tmp_path)


def test_nets_called_by_name_with_several_outputs() -> None:
    class Pair(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Linear(24, width)
            self.heads = nn.ModuleList([nn.Linear(width, 3), nn.Linear(width, 2)])

        def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = self.body(torch.cat([left, right], 1)).relu()
            return {"kind": self.heads[0](hidden), "sign": self.heads[1](hidden)}

    example = {"left": INPUTS[:1, 0], "right": INPUTS[:1, 1]}
    task = make_task(
        model=Pair(4),
        example_inputs=example,
        training=[({"left": INPUTS[:64, 0], "right": INPUTS[:64, 1]}, CLASSES[:64])] * 2,
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs["kind"], targets),
    )
    student = Pair(4)
    losses = [ek.KD(), ek.LogitsMSE(output="sign"), ek.FeatureMatch({"body": "body"})]
    taught = ek.distill(Pair(8), copy.deepcopy(student), task, losses=losses, training=QUICK)
    assert not torch.equal(taught.heads[1].weight, student.heads[1].weight)  # type: ignore[index, union-attr]
