"""How often does the metric gate ship what it must not, and how many samples does it need to ship what it may?

::

    python benchmarks/verdict.py            # five minutes
    python benchmarks/verdict.py --quick    # half a minute

Right and wrong answers of a float model and of a compressed one are drawn sample by sample: a share of decisions flips, some
for the better and some for the worse, so that the true drop is known. The gate of ``edgekit validate`` (95 % score interval for
matched proportions, Tango 1998) judges each set. At a true drop of exactly the limit every PASS is a false SHIP;
the gate promises at most 5 % (2.5 % by its interval). Without a true drop, the share of PASS is its power. Slices are judged
likewise, with one slice at the limit and the others without a drop.
"""

from __future__ import annotations

import argparse
import itertools
import math
from typing import Any

import numpy as np

from edgekit.core.metric import Metric
from edgekit.core.profile import Tolerances
from edgekit.device_tests.gates import metric_gate, slice_gate
from edgekit.device_tests.scoring import score

LIMIT_POINTS = 1.0
FALSE_SHIP_LIMIT = 0.05
SAMPLES = (250, 500, 1_000, 2_000, 5_000, 10_000, 50_000)
FLIPS = (0.01, 0.03, 0.10)
"""Share of samples on which the two models are not both right or both wrong."""
ACCURACY = 0.85
SLICES = (1, 4, 10)


def right(outputs: Any, _targets: Any) -> Any:
    """The outputs are the scores already."""
    return outputs["score"]


METRIC = Metric(name="right", score=right, predict=None)


def draw(random: np.random.Generator, count: int, *, flips: float, drop: float) -> tuple[Any, Any]:
    """Scores of the float model and of the compressed one, ``[count]`` each, with a true drop (a share)."""
    lost, gained = (flips + drop) / 2, (flips - drop) / 2
    shares = [gained, lost, ACCURACY - lost, 1 - ACCURACY - gained]  # wrong to right, right to wrong, both right, both wrong
    kind = random.choice(4, size=count, p=shares)
    return np.isin(kind, (1, 2)).astype(np.float64), np.isin(kind, (0, 2)).astype(np.float64)


def outcome(random: np.random.Generator, count: int, *, flips: float, drop: float, seed: int) -> str:
    """What the metric gate says about one set of samples."""
    floats, ours = draw(random, count, flips=flips, drop=drop)
    targets = np.zeros(count, np.int64)
    found = score(METRIC, {"score": ours}, float_outputs={"score": floats}, targets=targets, seed=seed)
    return metric_gate("onnx", found, tolerances=Tolerances(metric_drop_points=LIMIT_POINTS)).outcome.value


def slice_outcome(random: np.random.Generator, count: int, slices: int, *, flips: float, drop: float, seed: int) -> str:
    """What the slice gate says where one of ``slices`` slices of ``count`` samples has the true drop."""
    parts = [draw(random, count, flips=flips, drop=drop if at == 0 else 0.0) for at in range(slices)]
    floats, ours = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    labels = {"group": np.repeat(np.arange(slices).astype(str), count)}
    targets = np.zeros(floats.size, np.int64)
    found = score(METRIC, {"score": ours}, float_outputs={"score": floats}, targets=targets, slices=labels, seed=seed)
    return slice_gate("onnx", found, limit=LIMIT_POINTS).outcome.value


def interval(successes: int, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    z, share = 1.959964, successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return centre - half, centre + half


def tally(kind: str, trials: int, judged: list[str], **about: Any) -> dict[str, Any]:
    counts = {name: judged.count(name) for name in ("pass", "inconclusive", "fail")}
    low, high = interval(counts["pass"], trials)
    return {
        "gate": kind,
        **about,
        "trial_count": trials,
        **counts,
        "pass_share": counts["pass"] / trials,
        "interval": (low, high),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    options = parser.parse_args()
    trials = 100 if options.quick else 1_000
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for count, flips in itertools.product(SAMPLES, FLIPS):
        for drop in (LIMIT_POINTS / 100, 0.0, -LIMIT_POINTS / 200):
            if flips < abs(drop):
                continue
            judged = [outcome(random, count, flips=flips, drop=drop, seed=trial) for trial in range(trials)]
            rows.append(tally("metric drop", trials, judged, sample_count=count, flip_share=flips, true_drop_points=100 * drop))
    for slices, drop in itertools.product(SLICES, (LIMIT_POINTS / 100, 0.0)):
        judged = [slice_outcome(random, 2_000, slices, flips=0.03, drop=drop, seed=trial) for trial in range(trials // 4)]
        about = {"sample_count": 2_000, "slice_count": slices, "flip_share": 0.03, "true_drop_points": 100 * drop}
        rows.append(tally("slice drop", trials // 4, judged, **about))
    show(rows)

    from lab.results import write_results

    settings = {"limit_points": LIMIT_POINTS, "accuracy": ACCURACY, "false_ship_limit": FALSE_SHIP_LIMIT}
    print(f"written: {write_results('verdict', rows, settings=settings, packages=('edgekit', 'numpy'), quick=options.quick)}")


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        slices = f" x {row['slice_count']} slices" if "slice_count" in row else ""
        low, high = row["interval"]
        passed = f"pass {100 * row['pass_share']:5.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        drawn = f"{row['sample_count']:>6,} samples{slices:14} {100 * row['flip_share']:4.0f} % flips"
        print(
            f"{row['gate']:12} {drawn}, true drop {row['true_drop_points']:+5.2f}: {passed},"
            f" open {row['inconclusive']}, fail {row['fail']}"
        )
    worst = max((row for row in rows if row["true_drop_points"] >= LIMIT_POINTS), key=lambda row: row["pass_share"])
    kept = "keeps" if worst["pass_share"] <= FALSE_SHIP_LIMIT else "BREAKS"
    print(f"worst false SHIP at the limit: {100 * worst['pass_share']:.1f} %: {kept} its {100 * FALSE_SHIP_LIMIT:.0f} %")


if __name__ == "__main__":
    main()
