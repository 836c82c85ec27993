"""Each distillation loss against its paper's formula, written out by hand or as the authors published it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgekit as ek
from edgekit.compression.distill.loss import Answers, Comparison, DistillationLoss, read_losses
from edgekit.core import entry_points
from edgekit.core.distillation import Distill, LossTerm
from edgekit.core.errors import RecipeError, TaskError
from edgekit.core.recipe import Recipe

KINDS = torch.tensor([2, 0, 1, 2, 3, 3])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(
    loss: DistillationLoss, student: torch.Tensor, teacher: torch.Tensor, *, targets: Any = None, epoch: int = 0
) -> torch.Tensor:
    """The loss of two outputs, which are also the features of layer ``a``."""
    ours, theirs = (Answers({"output": tensor}, {"a": tensor}) for tensor in (student, teacher))
    found: torch.Tensor = loss.build(ours, theirs)(Comparison(ours, theirs, targets, epoch))
    return found


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_kd_is_the_divergence_of_softened_probabilities_times_the_squared_temperature() -> None:
    student, teacher = random(6, 4, seed=1), random(6, 4, seed=2)
    rows = [divergence(softmax(t, 3.0), softmax(s, 3.0)) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    assert compare(ek.KD(temperature=3), student, teacher).item() == pytest.approx(9 * sum(rows) / 6, rel=1e-5)


def test_classes_may_stand_on_another_axis() -> None:
    student, teacher = random(2, 3, 5, seed=1), random(2, 3, 5, seed=2)
    flat = compare(ek.KD(), student.reshape(6, 5), teacher.reshape(6, 5))
    assert compare(ek.KD(class_axis=-1), student, teacher).item() == pytest.approx(flat.item(), rel=1e-6)
    moved = compare(ek.KD(), student.movedim(-1, 1), teacher.movedim(-1, 1))
    assert moved.item() == pytest.approx(flat.item(), rel=1e-6)


def test_dkd_weighs_the_target_class_and_the_others_apart() -> None:
    student, teacher = random(6, 4, seed=1), random(6, 4, seed=2)
    expected = 0.0
    for s, t, kind in zip(student.tolist(), teacher.tolist(), KINDS.tolist(), strict=True):
        p, q = softmax(t, 2.0), softmax(s, 2.0)
        others_p, others_q = ([r[c] / (1 - r[kind]) for c in range(4) if c != kind] for r in (p, q))
        target = divergence([p[kind], 1 - p[kind]], [q[kind], 1 - q[kind]])
        expected += 4 * (1.5 * target + 6 * divergence(others_p, others_q)) / 6
    loss = ek.DKD(temperature=2, alpha=1.5, beta=6, warmup=4)
    assert compare(loss, student, teacher, targets=KINDS, epoch=3).item() == pytest.approx(expected, rel=1e-5)
    assert compare(loss, student, teacher, targets=KINDS, epoch=0).item() == pytest.approx(expected / 4, rel=1e-5)


def test_dkd_with_equal_weights_times_the_teachers_doubt_is_kd() -> None:
    """Equation 7 of the paper: KD = TCKD + (1 - p_target) NCKD."""
    student, teacher = random(1, 4, seed=1), random(1, 4, seed=2)
    doubt = 1 - softmax(teacher[0].tolist(), 4.0)[1]
    together = compare(ek.DKD(alpha=1, beta=doubt), student, teacher, targets=torch.tensor([1]))
    assert together.item() == pytest.approx(compare(ek.KD(), student, teacher).item(), rel=1e-4)


def test_dkd_says_that_it_needs_class_numbers() -> None:
    with pytest.raises(TaskError, match=r"class numbers.*float32 \[6, 4\].*Use kd"):
        compare(ek.DKD(), random(6, 4), random(6, 4), targets=random(6, 4))


def test_logits_mse_is_the_mean_square() -> None:
    student, teacher = random(6, 4, seed=1), random(6, 4, seed=2)
    expected = sum((a - b) ** 2 for a, b in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)) / 24
    assert compare(ek.LogitsMSE(), student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_features_of_one_width_are_compared_as_they_are() -> None:
    student, teacher = random(2, 3, 4, 4, seed=1), random(2, 3, 4, 4, seed=2)
    loss = ek.FeatureMatch({"a": "a"})
    assert compare(loss, student, teacher).item() == pytest.approx((student - teacher).square().mean().item() / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "shape"),
    [
        ((2, 3), (2, 5), [5, 3]),
        ((2, 3, 7), (2, 5, 7), [5, 3]),
        ((2, 7, 3), (2, 7, 5), [5, 3]),  # tokens
        ((2, 3, 6, 6), (2, 5, 3, 3), [5, 3]),
        ((2, 3, 4, 4, 4), (2, 5, 4, 4, 4), [5, 3]),
    ],
)
def test_an_adapter_joins_unequal_widths_and_learns(student: tuple[int, ...], teacher: tuple[int, ...], shape: list[int]) -> None:
    torch.manual_seed(0)
    ours, theirs = (Answers({"output": tensor}, {"a": tensor}) for tensor in (random(*student), random(*teacher, seed=1)))
    module = ek.FeatureMatch({"a": "a"}).build(ours, theirs)
    assert [list(parameter.shape) for parameter in module.parameters()] == [shape, shape[:1]]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(5):
        losses.append(module(Comparison(ours, theirs)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_a_1x1_convolution_is_what_the_adapter_computes() -> None:
    pair = random(2, 3, 6, 6), random(2, 5, 3, 3, seed=1)
    ours, theirs = (Answers({"output": tensor}, {"a": tensor}) for tensor in pair)
    module = ek.FeatureMatch({"a": "a"}).build(ours, theirs)
    weight, bias = module.parameters()
    mapped = F.conv2d(F.avg_pool2d(ours.features["a"], 2), weight[:, :, None, None], bias)
    expected = (mapped - theirs.features["a"]).square().mean() / 2
    assert module(Comparison(ours, theirs)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_attention_transfer_compares_where_features_are_large() -> None:
    student, teacher = random(2, 3, 4, 4, seed=1), random(2, 6, 4, 4, seed=2)
    maps = []
    for features in (student, teacher):
        found = [
            [sum(channel[y, x].item() ** 2 for channel in sample) for y in range(4) for x in range(4)] for sample in features
        ]
        maps.append([[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in found])
    expected = sum((a - b) ** 2 for s, t in zip(*maps, strict=True) for a, b in zip(s, t, strict=True)) / 2
    assert compare(ek.AttentionTransfer({"a": "a"}), student, teacher).item() == pytest.approx(expected, rel=1e-4)
    assert compare(ek.AttentionTransfer({"a": "a"}), 7 * teacher, teacher).item() == pytest.approx(0, abs=1e-10)


def test_attention_transfer_needs_positions() -> None:
    with pytest.raises(TaskError, match=r"'a' of the student returns \[6, 4\].*before the pooling"):
        compare(ek.AttentionTransfer({"a": "a"}), random(6, 4), random(6, 4))


def rkd_as_published(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance and angle loss as in the authors' code (github.com/lenscloth/RKD, metric/loss.py)."""

    def pdist(e: torch.Tensor) -> torch.Tensor:
        square = e.pow(2).sum(dim=1)
        found = (square.unsqueeze(1) + square.unsqueeze(0) - 2 * (e @ e.t())).clamp(min=1e-12).sqrt()
        found = found.clone()
        found[range(len(e)), range(len(e))] = 0
        return found

    t_d, d = pdist(teacher), pdist(student)
    distance = F.smooth_l1_loss(d / d[d > 0].mean(), t_d / t_d[t_d > 0].mean())
    angles = []
    for e in (student, teacher):
        norm = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), p=2, dim=2)
        angles.append(torch.bmm(norm, norm.transpose(1, 2)).view(-1))
    return distance, F.smooth_l1_loss(*angles)


def test_rkd_is_what_its_authors_compute() -> None:
    student, teacher = random(8, 3, seed=1).double(), random(8, 5, seed=2).double()
    distance, angle = rkd_as_published(student, teacher)
    assert compare(ek.RKD(), student, teacher).item() == pytest.approx(25 * distance.item() + 50 * angle.item(), rel=1e-5)
    few = rkd_as_published(student[:4], teacher[:4])[1]
    assert compare(ek.RKD(distance=0, angle=1, triple_samples=4), student, teacher).item() == pytest.approx(few.item(), rel=1e-5)


def test_rkd_of_equal_samples_has_a_finite_gradient() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    compare(ek.RKD(), student, random(4, 3)).backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_crd_tells_a_samples_own_teacher_from_others() -> None:
    """Both batches against loops; the second also meets the first in the bank, but for its own class."""
    torch.manual_seed(3)
    batches = [
        (random(3, 4, seed=at), random(3, 6, seed=at + 9), torch.tensor(kinds)) for at, kinds in enumerate(([0, 1, 2], [1, 1, 0]))
    ]
    first = [Answers({"output": tensor}) for tensor in batches[0][:2]]
    module: Any = ek.CRD(embedding=5, temperature=0.5, negatives=64).build(first[0], first[1])
    known: list[tuple[torch.Tensor, int]] = []
    constant = 0.0
    for student, teacher, kinds in batches:
        found = module(Comparison(Answers({"output": student}), Answers({"output": teacher}), kinds)).item()
        candidates = [*zip(teacher, kinds.tolist(), strict=True), *known]
        embedded = [F.normalize(module.embed_teacher(vector), dim=0) for vector, _ in candidates]
        scores = [[math.exp((F.normalize(module.embed_student(s), dim=0) @ e).item() / 0.5) for e in embedded] for s in student]
        constant = constant or sum(map(sum, scores)) / 9
        total = 0.0
        for row, kind in zip(range(3), kinds.tolist(), strict=True):
            others = [scores[row][at] for at, (_, other) in enumerate(candidates) if other != kind]
            noise = len(others) * constant
            total -= math.log(scores[row][row] / (scores[row][row] + noise)) + sum(math.log(noise / (e + noise)) for e in others)
        assert found == pytest.approx(total / 3, rel=1e-4)
        known += zip(teacher, kinds.tolist(), strict=True)


def test_crds_bank_holds_the_last_vectors() -> None:
    module: Any = ek.CRD(negatives=4).build(*[Answers({"output": random(3, 2)})] * 2)
    for at in range(3):
        answers = Answers({"output": torch.full((3, 2), float(at + 1))})
        module(Comparison(answers, answers))
    assert sorted(module.bank[:, 0].tolist()) == [2, 3, 3, 3]


@pytest.mark.parametrize("loss", [ek.KD(), ek.DKD(), ek.LogitsMSE()])
def test_outputs_of_different_shapes_are_refused_with_both(loss: DistillationLoss) -> None:
    with pytest.raises(TaskError, match=rf"'{loss.kind}': the student answers \[6, 4\], the teacher \[6, 5\]"):
        compare(loss, random(6, 4), random(6, 5))


def test_a_single_number_is_no_distribution() -> None:
    with pytest.raises(TaskError, match=r"fewer than two there.*logits-mse for a regression"):
        compare(ek.KD(), random(6, 1), random(6, 1))


def test_one_of_several_outputs_is_compared_by_name_or_place() -> None:
    ours, theirs = ({"boxes": random(6, 2, seed=seed), "kind": random(6, 4, seed=seed + 9)} for seed in (1, 2))
    pair = Answers(ours), Answers(theirs)
    expected = (ours["kind"] - theirs["kind"]).square().mean().item()
    for output in ("kind", 1, -1):
        loss = ek.LogitsMSE(output=output)
        assert loss.build(*pair)(Comparison(*pair)).item() == pytest.approx(expected)
    with pytest.raises(RecipeError, match=r"no output 'kin'.*boxes, kind.*Did you mean 'kind'"):
        ek.LogitsMSE(output="kin").build(*pair)


def test_every_loss_that_is_declared_can_be_written_in_a_recipe() -> None:
    for name in entry_points.names("losses"):
        options: dict[str, Any] = {"layers": {"a": "a"}} if name in {"feature-match", "attention-transfer"} else {}
        (loss,) = read_losses([LossTerm(kind=name, weight=0.5, **options)])
        assert loss.kind == name and loss.weight == 0.5
        assert isinstance(loss.build(*[Answers({"output": random(2, 3, 4)}, {"a": random(2, 3, 4)})] * 2), nn.Module)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (LossTerm(kind="kdd"), r"unknown loss 'kdd'; known: .*rkd.*Did you mean 'kd'\?"),
        (LossTerm(kind="kd", temprature=2), r"loss 'kd': unknown field 'temprature'\. Did you mean 'temperature'"),
        (LossTerm(kind="kd", temperature=-1), r"loss 'kd': field 'temperature': .*greater than 0 \(found -1\)"),
        (LossTerm(kind="feature-match"), r"loss 'feature-match': field 'layers': field required"),
    ],
)
def test_a_loss_that_cannot_be_read_is_explained(term: LossTerm, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_losses([term])


def test_a_recipe_with_losses_round_trips(tmp_path: Any) -> None:
    step = Distill(losses=(ek.KD(temperature=2), ek.FeatureMatch({"layer3": "layer3"}, weight=0.1)))
    recipe = Recipe(name="taught", steps=(step,))
    (tmp_path / "taught.toml").write_text(recipe.to_toml())
    again = Recipe.read(tmp_path / "taught.toml")
    assert again == recipe
    assert read_losses(again.steps[0].losses) == (ek.KD(temperature=2), ek.FeatureMatch({"layer3": "layer3"}, weight=0.1))  # type: ignore[attr-defined]
