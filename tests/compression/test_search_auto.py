"""``auto``: the cheapest plan that keeps the metric; never empty-handed; goes on where it was killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.core.compressed import Compressed
from edgekit.core.errors import DataError, RecipeError, UsageError
from edgekit.core.metric import Metric
from edgekit.core.recipe import Auto, Quantize, Recipe
from edgekit.core.search import SearchReport
from edgekit.core.task import Task


class Net(nn.Module):
    """Three layers; with ``gain`` the first one's weights for a feature that is always zero leave few steps for the others."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.middle, self.last = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 6)
        with torch.no_grad():
            self.first.weight[:, 0] = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def make_task(gain: float = 0.1, count: int = 1200, **changes: Any) -> Task:
    model = Net(gain).eval()
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(count, 12)).astype(np.float32)
    samples[:, 0] = 0.0
    with torch.no_grad():
        answers = model(torch.from_numpy(samples)).argmax(1).numpy()
    fields: dict[str, Any] = {
        "name": "net",
        "model": model,
        "example_inputs": samples[:1],
        "calibration": [samples[:64] + np.float32([0.0, *[0.01] * 11])],
        "evaluation": [(samples, answers)],
    }
    return Task(**(fields | changes))


def auto(task: Task, output: Path | None = None, **fields: Any) -> tuple[Compressed, SearchReport]:
    made = pipeline.compress(task, recipe=Recipe(name="auto", steps=(Auto(**fields),)), output=output)
    return made, SearchReport.parse(made.record.history[-1].details, source="test")


def test_int8_is_enough_and_the_recipe_of_the_result_says_so() -> None:
    made, found = auto(make_task(), max_drop=3.0, candidates=("int8", "mixed", "fp16"))
    assert found.passed
    assert [trial.label for trial in found.trials] == ["int8"]
    assert found.trials[0].highest_drop_points is not None
    assert found.trials[0].drop_points <= found.trials[0].highest_drop_points <= 3.0
    assert made.recipe.name == "auto (int8)"
    assert made.recipe.steps == (Quantize(),)
    assert [step.kind for step in made.record.history] == ["capture", "quantize", "auto"]


def test_4_bits_are_tried_after_8_did_well_and_taken_if_they_do() -> None:
    _, loose = auto(make_task(), max_drop=60.0)
    _, tight = auto(make_task(), max_drop=3.0)
    assert [trial.label for trial in loose.trials] == ["int8", "w4a8"]
    assert loose.chosen == "w4a8"
    assert loose.trials[1].weights_bytes < loose.trials[0].weights_bytes
    assert tight.chosen == "int8"


def test_layers_are_freed_where_int8_misses() -> None:
    made, found = auto(make_task(gain=12.0), max_drop=2.0)
    outcomes = {trial.label.partition(" ")[0]: trial.outcome for trial in found.trials}
    assert outcomes["int8"] == "missed"
    assert outcomes["w4a8"] == "skipped"
    assert outcomes["mixed"] == "passed"
    assert found.passed
    [step] = made.recipe.steps
    assert isinstance(step, Quantize)
    assert "first" in {rule.layers for rule in step.layers if rule.precision == "fp16"}
    assert 1.0 < found.trials[-1].work < 4.0


def test_nothing_passes_yet_something_is_kept_with_what_stands_in_the_way() -> None:
    made, found = auto(make_task(gain=12.0), max_drop=0.6, candidates=("int8",))
    assert not found.passed
    assert found.chosen == "int8"
    assert made.contract.entries
    assert "nearest is int8" in found.message
    assert found.binding[0].layer == "first"
    assert found.binding[0].gain_db > 3.0
    assert found.binding[0].freed_drop_points <= found.binding[0].drop_points
    assert found.pareto == ("int8",)


def test_too_little_data_to_show_the_bound_is_said() -> None:
    _, found = auto(make_task(count=40), max_drop=0.5, candidates=("fp16",))
    assert [trial.outcome for trial in found.trials] == ["unproven"]
    assert not found.passed
    assert found.smallest_bound > 0.5
    assert "Give more evaluation data" in found.message


def test_size_bound_keeps_large_plans_out() -> None:
    _, free = auto(make_task(), max_drop=3.0, candidates=("int8", "fp16"))
    bound = free.trials[0].weights_bytes + 1
    _, found = auto(make_task(), max_drop=3.0, candidates=("fp16", "int8"), size_bytes=bound)
    assert [trial.outcome for trial in found.trials] == ["too large", "passed"]
    with pytest.raises(RecipeError, match="could not carry out any"):
        auto(make_task(), max_drop=3.0, candidates=("fp16",), size_bytes=100)


def test_a_killed_search_goes_on_and_finds_the_same(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    seen: list[str] = []

    def kill(what: str, done: int, total: int | None) -> None:
        seen.append(what)
        if what.startswith("auto: w8"):
            raise Killed

    recipe = Recipe(name="auto", steps=(Auto(max_drop=0.6, candidates=("int8", "w8", "fp16")),))
    task = make_task(gain=12.0)
    with pytest.raises(Killed):
        pipeline.compress(task, recipe=recipe, output=tmp_path / "run", progress=kill)
    kept = sorted((tmp_path / "run.partial").rglob("trial.json"))
    assert len(kept) == 2 or len(kept) == 1
    seen.clear()
    made = pipeline.compress(task, recipe=recipe, output=tmp_path / "run", progress=lambda what, *_: seen.append(what))
    assert "judge int8" not in seen
    assert "judge fp16" in seen
    assert not (tmp_path / "run.partial").exists()
    whole, _ = auto(task, max_drop=0.6, candidates=("int8", "w8", "fp16"))
    assert made.contract == whole.contract
    assert made.recipe == whole.recipe


def test_bad_metrics_and_bounds_are_refused_in_words() -> None:
    random = np.random.default_rng(0)
    shaky = Metric(name="shaky", score=lambda outputs, targets: random.random(len(targets)))
    with pytest.raises(DataError, match="'shaky' changes between two identical runs: sample 0 scored"):
        auto(make_task(metric=shaky))
    with pytest.raises(DataError, match="'empty' returned nan for sample 0"):
        auto(make_task(metric=Metric(name="empty", score=lambda outputs, targets: np.full(len(targets), np.nan))))
    with pytest.raises(DataError, match="no evaluation data, so 'auto' cannot judge"):
        auto(make_task(evaluation=None))
    with pytest.raises(RecipeError, match="A drop of 50 points is no bound: the float model itself scores 25 points"):
        auto(make_task(metric=Metric(name="low", score=lambda outputs, targets: np.full(len(targets), 0.25))), max_drop=50)
    with pytest.raises(pydantic.ValidationError, match="greater than or equal to 0"):
        Auto(max_drop=-1)
    with pytest.raises(pydantic.ValidationError, match="Did you mean 'int8'"):
        Auto(candidates=("int9",))
    with pytest.raises(UsageError, match="quantized already"):
        pipeline.compress(make_task(), recipe="int8+auto")


def test_evaluation_data_that_changes_is_refused() -> None:
    random = np.random.default_rng(0)

    def evaluation() -> Iterator[Any]:
        yield random.normal(size=(32, 12)).astype(np.float32), np.zeros(32, np.int64)

    with pytest.raises(DataError, match="evaluation data changes between two identical runs"):
        auto(make_task(evaluation=evaluation))


@pytest.mark.parametrize("word", ["auto", "auto+none"])
def test_word(word: str) -> None:
    if word == "auto":
        assert Recipe.parse_text(word).steps == (Auto(),)
        toml = Recipe.parse_text(word).to_toml()
        assert 'kind = "auto"' in toml
    else:
        with pytest.raises(RecipeError, match="unknown word 'none'"):
            Recipe.parse_text(word)
