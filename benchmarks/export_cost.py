"""What exporting MobileNetV2 to three targets costs: one call of edgekit beside the vendors' own calls in one process.

::

    python benchmarks/export_cost.py             # about ten minutes
    python benchmarks/export_cost.py --quick     # once each, no result is written over

Both begin with the same ``.pt2`` file in a fresh process, imports included, and end with three files: what the vendors write is
a model and nothing else, what edgekit writes was also read in a confined process, checked and run on golden inputs. The two take
turns. CPU time is that of the process and all it started, as the system counts it; memory is the largest resident set of any one
process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT_RATIO, LIMIT_MB = 0.6, 900.0
TOOLS = ("torch", "onnx", "onnxscript", "litert-torch", "coremltools", "tensorflow-cpu")

VENDORS = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
source, output = sys.argv[1:]
program = torch.export.load(source)
arguments = program.example_inputs[0]
torch.onnx.export(program, arguments, f"{output}/model.onnx", dynamo=True, external_data=False, verbose=False)
import litert_torch
litert_torch.convert(program.module(), arguments).export(f"{output}/model.tflite")
import coremltools
made = coremltools.convert(program.run_decompositions({}), minimum_deployment_target=coremltools.target.iOS17)
made.save(f"{output}/model.mlpackage")
"""


def command(side: str, source: Path, output: Path) -> list[str]:
    """The process to start."""
    if side == "vendors":
        return [sys.executable, "-c", VENDORS, str(source), str(output)]
    words = ["--target", "onnx", "--target", "tflite", "--target", "coreml", "--no-cache", "--no-progress", "--quiet"]
    return [str(Path(sys.executable).with_name("edgekit")), "export", str(source), *words, "-o", str(output / "run")]


def run_once(side: str, source: Path) -> dict[str, float]:
    """One export in a fresh process: CPU seconds, wall seconds, peak megabytes (10^6 bytes) of one process."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with tempfile.TemporaryFile() as words:
            process = subprocess.Popen(command(side, source, Path(folder)), stdin=subprocess.DEVNULL, stdout=words, stderr=words)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                words.seek(0)
                raise RuntimeError(f"{side} ended with code {process.returncode}:\n{words.read().decode()[-3000:]}")
        wall_s = time.perf_counter() - begin
        made = [path.suffix for path in Path(folder).rglob("model.*") if path.suffix in {".onnx", ".tflite", ".mlpackage"}]
        if sorted(made) != [".mlpackage", ".onnx", ".tflite"]:
            raise RuntimeError(f"{side} made {made}")
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes on Linux
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": wall_s, "peak_mb": usage.ru_maxrss * scale / 1e6}


def write_program(path: Path) -> None:
    """MobileNetV2 with random weights; what an export costs does not depend on them."""
    import torch

    sys.path.insert(0, str(HERE.parent / "examples" / "mobilenet"))
    import model

    torch.manual_seed(0)
    torch.export.save(torch.export.export(model.MobileNetV2().eval(), (torch.zeros(1, 3, 224, 224),)), path)


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of each side, and the ratios round by round."""
    sides = {
        side: {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)} for name, values in table.items()
        }
        for side in ("vendors", "edgekit")
        for table in [{name: [one[side][name] for one in rounds] for name in rounds[0][side]}]
    }
    ratios = [one["edgekit"]["cpu_s"] / one["vendors"]["cpu_s"] for one in rounds]
    return {**sides, "cpu_ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="one round; nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["EDGEKIT_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "mobilenet.pt2")
        write_program(source)
        rounds = []
        for count in range(1 if arguments.quick else arguments.rounds):
            order = ("vendors", "edgekit") if count % 2 == 0 else ("edgekit", "vendors")
            rounds.append({side: run_once(side, source) for side in order})
            print(json.dumps(rounds[-1]))
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {tool: metadata.version(tool) for tool in TOOLS},
        "load_at_end": os.getloadavg()[0],
        "goal": {"cpu_ratio": LIMIT_RATIO, "peak_mb": LIMIT_MB},
        **summary(rounds),
        "rounds": rounds,
    }
    print(json.dumps({key: result[key] for key in ("vendors", "edgekit", "cpu_ratio")}, indent=2))
    if not arguments.quick:
        (HERE / "results" / "export_cost.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
