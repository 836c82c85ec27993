"""Scores of slices: each by itself, the worst first, with bounds that hold for all of them."""

from __future__ import annotations

import numpy as np

from edgekit.core.metric import top1
from edgekit.device_tests.scoring import score

COUNT = 600


def outputs(classes: np.ndarray) -> dict[str, np.ndarray]:
    return {"scores": np.eye(3, dtype=np.float32)[classes]}


def test_a_slice_that_loses_is_found_where_the_mean_hides_it() -> None:
    targets = np.arange(COUNT) % 3
    people = np.where(np.arange(COUNT) < 540, "many", "few")
    ours = targets.copy()
    ours[540:570] = (targets[540:570] + 1) % 3
    found = score(top1, outputs(ours), float_outputs=outputs(targets), targets=targets, slices={"person": people})
    assert found.drop_points == 5
    few, many = found.slices
    assert (few.name, few.sample_count, few.drop_points, few.flip_count) == ("few", 60, 50, 30)
    assert (many.drop_points, many.flip_count) == (0, 0)
    assert few.drop_interval[0] < 50 < few.drop_interval[1]
    assert few.lowest_drop_points < few.drop_interval[0] + 1, "the bound for all slices is no tighter than one's own"
    assert few.lowest_drop_points > 20
    assert sum(one.sample_count for one in found.slices) == COUNT


def test_more_slices_make_bounds_wider() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, COUNT)
    ours = np.where(random.random(COUNT) < 0.1, (targets + 1) % 3, targets)
    half = np.where(np.arange(COUNT) < COUNT // 2, "a", "b")
    alone = score(top1, outputs(ours), float_outputs=outputs(targets), targets=targets, slices={"half": half})
    many = {f"group {at}": random.permutation(half) for at in range(20)}
    beside = score(top1, outputs(ours), float_outputs=outputs(targets), targets=targets, slices={"half": half, **many})
    own = {one.name: one for one in alone.slices}
    same = {one.name: one for one in beside.slices if one.group == "half"}
    for name, one in own.items():
        assert same[name].drop_interval == one.drop_interval
        assert same[name].lowest_drop_points < one.lowest_drop_points


def test_without_slices_there_are_none() -> None:
    targets = np.arange(9) % 3
    assert score(top1, outputs(targets), float_outputs=outputs(targets), targets=targets).slices == ()
