"""coremltools' own tests of its operations, with the Core ML reference executor in Core ML's place.

::

    python benchmarks/coreml_own_tests.py            # one case of each test: two minutes
    python benchmarks/coreml_own_tests.py --cases 6  # more of each: ten minutes

The tests come with the installed coremltools. On macOS each builds a model, predicts, and compares with numpy, torch,
TensorFlow, or values that Core ML once computed; elsewhere it stops after building. Here ``predict`` is the reference executor's
(``benchmarks/lab/coreml_predictions.py``). ML programs in float32; what a test's authors mark as failing is counted apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from lab.results import write_results

LAB = Path(__file__).resolve().parent / "lab"
PACKAGES = ("edgekit", "torch", "coremltools", "tensorflow-cpu", "numpy")
DEFAULT_CASES = 1
FINER = "the values are float16, and the test compares them more finely than float16 has steps"
FLOAT16_ERROR = 0.01
REASONS = {
    "the model is of the kind used before iOS 15 (neuralnetwork), which is refused": r"neuralNetwork",
    "an index out of range is refused with another exception, or where one version of macOS takes it": r"invalid_indices",
    "the test counts the conversions in a package whose inner type is float16": r"assert 0 == 2",
    "the right values are written down with three decimals, the test compares five": r"CropResize.*_ios1[67]",
    "a box beyond the picture that ends before it begins: what it means is not documented": r"iOS15\S*CropResize",
    "the test limits the seconds that coremltools itself takes to infer shapes": r"test_efficient_type_inference",
    "values of a tensor of three axes taken as [C, H, W]; the documentation says [N, C, D]": r"LocalResponseNorm.*smoke",
}
"""Why a test fails here -> what its name or message looks like."""


def folder() -> Path:
    """Where the installed coremltools keeps the tests of its operations."""
    spec = importlib.util.find_spec("coremltools")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("coremltools is not installed: pip install 'edgekit[coreml]'")
    return Path(spec.submodule_search_locations[0]) / "converters" / "mil" / "mil" / "ops" / "tests"


def run(cases: int) -> dict[str, list[str]]:
    """Test -> outcome and the end of its message."""
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        environment = os.environ | {
            "PYMIL_TEST_TARGETS": "mlprogram", "INCLUDE_MIL_FP32_UNIT_TESTS": "1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(LAB), "EDGEKIT_CASES": str(cases), "EDGEKIT_ANSWER": str(answer),
        }  # fmt: skip
        options = ["-q", "-p", "coreml_predictions", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "ignore", "--tb=line"]
        command = [sys.executable, "-m", "pytest", *options, "--rootdir", scratch, str(folder())]
        subprocess.run(command, env=environment, cwd=scratch, check=False)
        found: dict[str, list[str]] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def reason(test: str, message: str) -> str:
    """Why a test fails, as far as it is known."""
    text = f"{test}\n{message}"
    error = re.search(r"Max absolute difference among violations: ([\d.e+-]+)", text)
    if re.search(r"float16|fp16", text) and error and float(error[1]) < FLOAT16_ERROR:
        return FINER
    return next((words for words, pattern in REASONS.items() if re.search(pattern, text)), "not known")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=DEFAULT_CASES, help="most cases of one test function")
    arguments = parser.parse_args()
    found = run(arguments.cases)
    counts = Counter(outcome for outcome, _ in found.values())
    failed = {test: message for test, (outcome, message) in found.items() if outcome == "failed"}
    row = {
        "run": counts["passed"] + counts["failed"],
        "passed": counts["passed"],
        "failed": counts["failed"],
        "expected_failures": counts["xfailed"] + counts["xpassed"],
        "skipped": counts["skipped"],
        "reasons": dict(Counter(reason(*item) for item in failed.items()).most_common()),
        "failures": [f"{test[:300]}: {reason(test, message)}" for test, message in failed.items()],
    }
    settings = {
        "cases_of_each_test": arguments.cases,
        "precision": "float32",
        "semantics": "reference semantics, not the Neural Engine",
    }
    print(write_results("coreml_own_tests", [row], settings=settings, packages=PACKAGES, quick=False))


if __name__ == "__main__":
    main()
