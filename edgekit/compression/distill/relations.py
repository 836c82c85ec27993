"""Losses between samples: how the samples of a batch lie to each other, and which student's answer belongs to which teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pydantic
import torch
from torch import nn
from torch.nn import functional

from edgekit.compression.distill.loss import Answers, Comparison, DistillationLoss, pick_output
from edgekit.core.errors import TaskError

__all__ = ["CRD", "RKD"]


class _SampleLoss(DistillationLoss):
    """Base of losses between whole samples, each a vector.

    Args:
        layers: Student's layer -> teacher's layer, by module path; empty: the outputs are compared.
    """

    layers: dict[str, str] = {}

    def __init__(self, layers: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(**(fields if layers is None else {"layers": layers, **fields}))

    @property
    def layer_names(self) -> tuple[tuple[str, str], ...]:
        """The pairs of :attr:`layers`."""
        return tuple(self.layers.items())

    def vectors_of(self, student: Answers, teacher: Answers) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """``[N, D]`` and ``[N, D']`` of student and teacher for each pair of layers, in float32."""
        if not self.layers:
            pairs = [(pick_output(student, self.output, loss=self.kind), pick_output(teacher, self.output, loss=self.kind))]
        else:
            pairs = [(student.features[ours], teacher.features[theirs]) for ours, theirs in self.layer_names]
        return [(ours.float().flatten(1), theirs.float().flatten(1)) for ours, theirs in pairs]


class RKD(_SampleLoss):
    """Relations (Park et al., "Relational knowledge distillation", arXiv:1904.05068).

    Huber loss between the distances of all pairs of samples, each divided by the batch's mean, and between the cosines of the
    angles of all triples. Widths of student and teacher may differ. Without layers the outputs are compared.

    Args:
        distance: Weight of the distances; 25 in the paper's classification experiments.
        angle: Weight of the angles; 50 there.
        triple_samples: At most so many samples of a batch enter the triples, whose memory grows with the third power.

    >>> RKD({"pool": "pool"}, angle=0).distance
    25.0
    """

    kind: Literal["rkd"] = "rkd"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    distance: float = pydantic.Field(default=25.0, ge=0)
    angle: float = pydantic.Field(default=50.0, ge=0)
    triple_samples: int = pydantic.Field(default=128, ge=3)

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares."""
        self.vectors_of(student, teacher)
        return _RKD(self)


class _RKD(nn.Module):
    def __init__(self, loss: RKD) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        total = torch.zeros((), device=next(iter(comparison.student.outputs.values())).device)
        for ours, theirs in self.loss.vectors_of(comparison.student, comparison.teacher):
            if self.loss.distance:
                total = total + self.loss.distance * functional.smooth_l1_loss(_distances(ours), _distances(theirs))
            if self.loss.angle:
                few = slice(self.loss.triple_samples)
                total = total + self.loss.angle * functional.smooth_l1_loss(_cosines(ours[few]), _cosines(theirs[few]))
        return total


def _distances(vectors: torch.Tensor) -> torch.Tensor:
    """Distances ``[N, N]`` of vectors ``[N, D]``, divided by the mean of those that are not zero (equation 4)."""
    found = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    positive = found > 0
    return found / (found.sum() / positive.sum().clamp(min=1)).clamp(min=1e-12)


def _cosines(vectors: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle at sample j between i and k, ``[N (j), N (i), N (k)]`` (equation 6)."""
    directions = functional.normalize(vectors[None] - vectors[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


class CRD(_SampleLoss):
    """Contrast (Tian, Krishnan & Isola, "Contrastive representation distillation", arXiv:1910.10699).

    Both nets' vectors are embedded linearly into ``[N, embedding]`` of length 1 (both embeddings are trained along). A critic
    ``h = e / (e + M c)``, ``e = exp(student . teacher / temperature)``, learns to tell a student's vector with the same sample's
    teacher vector from those with M others': ``-log h(own) - sum log(1 - h(other))``, averaged over samples (equations 17 to 19).
    ``c`` is the mean of ``e`` over the first batch, as the authors' code estimates it; the size of the data set then cancels.

    What the paper does otherwise: its memory of every sample's embedding, addressed by sample number, is here a bank of the
    teacher's last vectors. They are stored before the embedding, so they are never stale, and any loader will do. Where targets
    are class numbers, samples of the same class are no negatives (as in the paper); else keep the bank smaller than the data set.
    Only the student's vectors are anchors.

    Args:
        embedding: Width of the common space.
        temperature: Of the critic.
        negatives: Vectors in the bank.

    >>> CRD({"pool": "pool"}).embedding
    128
    """

    kind: Literal["crd"] = "crd"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    embedding: int = pydantic.Field(default=128, ge=2)
    temperature: float = pydantic.Field(default=0.07, gt=0)
    negatives: int = pydantic.Field(default=1024, ge=1)

    def build(self, student: Answers, teacher: Answers) -> nn.Module:
        """The module that compares, with embeddings and a bank.

        Raises:
            TaskError: More than one pair of layers.
        """
        found = self.vectors_of(student, teacher)
        if len(found) != 1:
            raise TaskError(f"Distillation loss 'crd' compares one layer, found {len(found)}. Name one, or add a term for each.")
        return _CRD(self, found[0][0].shape[1], found[0][1].shape[1])


class _CRD(nn.Module):
    bank: torch.Tensor
    bank_classes: torch.Tensor
    filled: torch.Tensor
    constant: torch.Tensor

    def __init__(self, loss: CRD, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.loss = loss
        self.embed_student = nn.Linear(student_width, loss.embedding)
        self.embed_teacher = nn.Linear(teacher_width, loss.embedding)
        self.register_buffer("bank", torch.zeros(loss.negatives, teacher_width))
        self.register_buffer("bank_classes", torch.full((loss.negatives,), -1))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))  # vectors ever stored
        self.register_buffer("constant", torch.zeros(()))  # mean of exp(similarity), found on the first batch

    def forward(self, comparison: Comparison) -> torch.Tensor:
        """Scalar."""
        ((ours, theirs),) = self.loss.vectors_of(comparison.student, comparison.teacher)
        count = len(ours)
        others = torch.cat([theirs, self.bank[: min(int(self.filled), len(self.bank))]])
        student = functional.normalize(self.embed_student(ours).float(), dim=1)
        teacher = functional.normalize(self.embed_teacher(others).float(), dim=1)
        similarity = student @ teacher.T / self.loss.temperature  # [N, N + bank]
        classes = _classes(comparison.targets, count)
        is_negative = self._negatives(classes, similarity)
        if not self.constant:
            self.constant.copy_(similarity.detach().exp().mean())
        # M negatives weigh c * M against e; as logits: log e - log(M c), so h = sigmoid(...).
        drawn = is_negative.sum(1, keepdim=True).clamp(min=1)
        logits = similarity - (drawn * self.constant).log()
        own = functional.logsigmoid(logits.diagonal())
        other = (functional.logsigmoid(-logits) * is_negative).sum(1)
        self._remember(theirs.detach(), classes)
        return -(own + other).mean()

    def _negatives(self, classes: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        """Which of the teacher's vectors are negatives for each of the student's, bool ``[N, N + bank]``."""
        count, total = similarity.shape
        known = torch.cat([classes, self.bank_classes[: total - count]])
        same = (classes[:, None] == known[None]) & (classes[:, None] >= 0)
        same[:, :count] |= torch.eye(count, dtype=torch.bool, device=same.device)
        return ~same

    def _remember(self, vectors: torch.Tensor, classes: torch.Tensor) -> None:
        """Put a batch into the bank, in place of the oldest."""
        size = len(self.bank)
        vectors, classes = vectors[-size:], classes[-size:]
        places = (int(self.filled) + torch.arange(len(vectors), device=vectors.device)) % size
        self.bank[places], self.bank_classes[places] = vectors, classes
        self.filled += len(vectors)


def _classes(targets: Any, count: int) -> torch.Tensor:
    """Class numbers ``[N]``; -1 where the targets are something else."""
    if isinstance(targets, torch.Tensor) and targets.shape == (count,) and not targets.is_floating_point():
        return targets.long()
    device = targets.device if isinstance(targets, torch.Tensor) else None
    return torch.full((count,), -1, device=device)
