"""ONNX's own test cases of every operator, read by edgekit: which pass, and why the others do not.

::

    python benchmarks/onnx_conformance.py              # about 3 minutes
    python benchmarks/onnx_conformance.py --export     # through torch.export too: about 10 minutes
    python benchmarks/onnx_conformance.py --only gather

The cases come with the onnx package (``onnx.backend.test``), with inputs and expected outputs. An input that fixed shapes need
as a constant (the target shape of a Reshape) is made one, as it is in any exported model.
"""

from __future__ import annotations

import argparse
import collections
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lab.onnx_cases import Case, Outcome, cases, check
from lab.results import write_results

PACKAGES = ("edgekit", "onnx", "torch", "numpy")


def table(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each operator."""
    grouped: dict[str, list[Outcome]] = collections.defaultdict(list)
    for outcome in outcomes:
        grouped[outcome.operator].append(outcome)
    rows = []
    for name, found in sorted(grouped.items()):
        why = collections.Counter(outcome.why for outcome in found if not outcome.passed)
        rows.append(
            {"operator": name, "cases": len(found), "passed": sum(outcome.passed for outcome in found), "others": dict(why)}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", action="store_true", help="run the exported program instead of the module")
    parser.add_argument("--only", default="", help="cases whose name holds this word")
    parser.add_argument("--quick", action="store_true", help="every tenth case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        chosen: list[Case] = [case for case in cases() if arguments.only in case.name][:: 10 if arguments.quick else 1]
        outcomes = [check(case, export=arguments.export) for case in chosen]
    passed = sum(outcome.passed for outcome in outcomes)
    for outcome in outcomes:
        if not outcome.passed:
            print(f"{outcome.name:60} {outcome.why}: {outcome.details}")
    why = collections.Counter(outcome.why for outcome in outcomes if not outcome.passed)
    print(f"{passed} of {len(outcomes)} cases pass; others: {dict(why)}")
    settings = {"exported": arguments.export, "cases": len(outcomes), "passed": passed, "others": dict(why)}
    partial = bool(arguments.quick or arguments.only)
    path = write_results("onnx_conformance", table(outcomes), settings=settings, packages=PACKAGES, quick=partial)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
