"""The steps that make a net smaller by taking parts out of it, as data."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

import pydantic

from edgekit.core.step import Step
from edgekit.core.training import Training

__all__ = ["Prune", "PruneGoal", "PruneScope", "Sparsify"]

PruneGoal = Literal["macs", "parameters", "size", "channels"]
PruneScope = Literal["global", "layer", "sensitivity"]

_WORD = re.compile(r"prune(?:(\d{1,3})(?:-(channels|parameters|size))?)?")
_SPARSE = re.compile(r"sparse(\d{1,3})")


class Prune(Step):
    """Structured pruning: channels, heads and hidden units are removed, and the net is smaller and dense again.

    Args:
        ratio: Share of the goal's quantity that goes, in (0, 1); None where ``latency_ms`` is the goal.
        goal: What ``ratio`` is a share of: MACs, parameters, size on disk, or the channels of each layer.
        latency_ms: The converted file shall run in at most this time (median) on ``device``; prunes as little as that takes.
        device: Profile name or file; where latency is measured.
        target: The converted file that is measured, and whose kernels ``align`` is for.
        criterion: What is removed first, by a name of the ``edgekit.criteria`` group.
        scope: Channels compete in the whole net (``global``), each layer loses the same share (``layer``), or each layer loses
            what it can bear (``sensitivity``).
        rounds: In so many steps, with an equal part of the training after each.
        keep: Module paths or shell patterns of layers whose outputs are not pruned.
        align: Channel counts are kept multiples of this; None: what the target's kernels want; 1: free.
        largest_ratio: No layer loses more than this share of its channels.
        never_slower: Measure the converted file against the dense one's and prune less while it is slower.
        recover: Fine-tune on the task's training data afterwards, as ``training`` says.
        dense_weight: Share of the fine-tuning's loss that is the distance to the dense net's answers (arXiv:1503.02531); the
            task's own loss has the rest. 0: the task's alone.
        training: The fine-tuning.

    >>> Prune.from_word("prune50").ratio
    0.5
    >>> Prune(ratio=0.3, goal="channels").word()
    'prune30-channels'
    """

    words: ClassVar[tuple[str, ...]] = ("prune50", "prune30-channels", "prune50-parameters", "prune50-size", "prune")

    kind: Literal["prune"] = "prune"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    ratio: float | None = pydantic.Field(default=None, gt=0, lt=1)
    goal: PruneGoal = "macs"
    latency_ms: float | None = pydantic.Field(default=None, gt=0)
    device: str = "host"
    target: str = "onnx"
    criterion: str = "l2"
    scope: PruneScope = "layer"
    rounds: int = pydantic.Field(default=1, ge=1)
    keep: tuple[str, ...] = ()
    align: int | None = pydantic.Field(default=None, ge=1)
    largest_ratio: float = pydantic.Field(default=0.9, gt=0, lt=1)
    never_slower: bool = True
    recover: bool = True
    dense_weight: float = pydantic.Field(default=0.9, ge=0, le=1)
    training: Training = Training()

    @pydantic.model_validator(mode="after")
    def _check_goal(self) -> Self:
        if self.ratio is not None and self.latency_ms is not None:
            msg = f"give a ratio ({self.ratio:g}) or latency_ms ({self.latency_ms:g}), not both"
            raise ValueError(msg)
        return self

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """``prune50``, ``prune30-channels``; ``prune`` alone has no goal yet."""
        found = _WORD.fullmatch(word)
        if found is None:
            return None
        data = {"ratio": int(found[1]) / 100 if found[1] else None, "goal": found[2] or "macs"}
        return cls.parse(data, source=f"Recipe word '{word}'")

    def word(self) -> str:
        """The written form of ratio and goal; it leaves out the other fields."""
        if self.ratio is None:
            return self.kind
        return f"prune{round(self.ratio * 100)}{'' if self.goal == 'macs' else f'-{self.goal}'}"


class Sparsify(Step):
    """Unstructured or 2:4 sparsity: weights become zero where they stand; shapes stay.

    Files get smaller only in formats that store sparse weights (Core ML), and inference gets faster only on hardware with
    sparse kernels; the step's record says which of the targets that is.

    Args:
        ratio: Share of each layer's weights that becomes zero; for ``2:4`` it is 0.5.
        pattern: ``unstructured``, or ``2:4``: two of every four neighbours along the input axis (arXiv:2104.08378).
        keep: Module paths or shell patterns of layers that stay dense.
        recover: Fine-tune afterwards with the zeros held, as ``training`` says.
        training: The fine-tuning.

    >>> Sparsify.from_word("sparse60").word()
    'sparse60'
    """

    words: ClassVar[tuple[str, ...]] = ("sparse50", "sparse2:4")

    kind: Literal["sparsify"] = "sparsify"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    ratio: float = pydantic.Field(default=0.5, gt=0, lt=1)
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    keep: tuple[str, ...] = ()
    recover: bool = True
    training: Training = Training()

    @pydantic.model_validator(mode="after")
    def _check_pattern(self) -> Self:
        if self.pattern == "2:4" and self.ratio != 0.5:
            msg = f"the pattern 2:4 is a ratio of 0.5, found {self.ratio:g}"
            raise ValueError(msg)
        return self

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """``sparse60``, ``sparse2:4``."""
        if word == "sparse2:4":
            return cls(pattern="2:4")
        found = _SPARSE.fullmatch(word)
        return None if found is None else cls.parse({"ratio": int(found[1]) / 100}, source=f"Recipe word '{word}'")

    def word(self) -> str:
        """The written form of ratio and pattern."""
        return "sparse2:4" if self.pattern == "2:4" else f"sparse{round(self.ratio * 100)}"
