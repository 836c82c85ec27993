"""Several models timed in turn by one process; loading twice; what the device says of its temperature and clocks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.runtimes.native.libraries import library_of
from edgekit.runtimes.native.measurement import target_of

Net = tuple[Path, dict[str, np.ndarray]]


def words_of(net: Net, folder: Path) -> list[str]:
    words = []
    for name, values in net[1].items():
        file = folder / f"{net[0].stem}-{name}.npy"
        np.save(file, values)
        words += ["--input", f"{name}={file}"]
    return words


def report_of(runner: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run([str(runner), *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def start(net: Net, folder: Path) -> list[str]:
    return [str(net[0]), "--library", str(library_of(target_of(net[0]))), *words_of(net, folder)]


def test_models_are_timed_in_alternating_blocks(runner: Path, tflite_net: Net, tflite_mix: Net, tmp_path: Path) -> None:
    words = ["--rounds", "6", "--block-ms", "0.5", "--beside", str(tflite_mix[0]), *words_of(tflite_mix, tmp_path)]
    found = report_of(runner, *start(tflite_net, tmp_path), *words)
    rounds = found["rounds"]
    assert rounds["loads"] == [0] * 6
    assert [model["path"] for model in rounds["models"]] == [str(tflite_net[0]), str(tflite_mix[0])]
    assert rounds["models"][0]["sha256"] == found["model"]["sha256"] != rounds["models"][1]["sha256"]
    for model in rounds["models"]:
        assert len(model["lengths"]) == len(model["waited_ns"]) == len(rounds["clocks_khz"]) == 6
        assert len(model["wall_ns"]) == len(model["cpu_ns"]) == sum(model["lengths"])
        assert min(model["wall_ns"]) > 0
        assert min(model["cpu_ns"]) > 0  # read around every sample
        assert model["preemptions"] >= 0


def test_a_model_beside_answers_its_own_inputs(runner: Path, tmp_path: Path) -> None:
    """The one beside is given an input it cannot take: it is its own that are checked, not the first model's."""
    import onnx.helper

    from tests.runtimes.native.conftest import save_onnx

    node = onnx.helper.make_node("MatMul", ["x", "x"], ["y"])
    small, large = np.eye(4, dtype=np.float32), np.eye(60, dtype=np.float32)
    nets = [(save_onnx(tmp_path, f"net{len(x)}", [node], {"x": x}, {"y": "float32"}), {"x": x}) for x in (small, large)]
    beside = ["--rounds", "30", "--block-ms", "0.2", "--beside", str(nets[1][0])]
    found = report_of(runner, *start(nets[0], tmp_path), *beside, *words_of(nets[1], tmp_path))
    medians = [float(np.median(model["wall_ns"])) for model in found["rounds"]["models"]]
    assert medians[1] > medians[0]  # 60³ products take longer than 4³
    words = [*start(nets[0], tmp_path), *beside, *words_of(nets[0], tmp_path)]
    done = subprocess.run([str(runner), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "input 'x' expects float32 [60, 60], and was given float32 [4, 4]" in done.stderr


def test_rounds_end_with_the_time_or_with_precision(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    words = [*start(tflite_net, tmp_path), "--rounds", "2", "--block-ms", "1"]
    rounds = report_of(runner, *words, "--seconds", "0.3")["rounds"]
    assert len(rounds["loads"]) > 2
    assert rounds["is_precise"] or sum(rounds["models"][0]["wall_ns"]) < 1e9
    assert len(report_of(runner, *words)["rounds"]["loads"]) == 2


def test_models_are_loaded_anew_where_the_time_allows_it(runner: Path, tflite_net: Net, tflite_mix: Net, tmp_path: Path) -> None:
    beside = ["--beside", str(tflite_mix[0]), *words_of(tflite_mix, tmp_path)]
    words = [*start(tflite_net, tmp_path), *beside, "--rounds", "12", "--block-ms", "0.2", "--loads", "4"]
    found = report_of(runner, *words, "--seconds", "0.2")
    loads = found["rounds"]["loads"]
    assert loads == sorted(loads)
    assert set(loads) == {0, 1, 2, 3}
    assert len(loads) >= 12
    assert found["model"]["sha256"] == found["rounds"]["models"][0]["sha256"]
    assert set(report_of(runner, *words, "--seconds", "1e-6")["rounds"]["loads"]) == {0}  # no time for loading
    waits = [wait for model in found["rounds"]["models"] for wait in model["waited_ns"]]
    assert min(waits) >= 0  # Linux tells


def test_a_sustained_run_says_what_each_window_was_like(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    words = ["--sustained-minutes", "0.01", "--window-seconds", "0.2"]
    found = report_of(runner, *start(tflite_net, tmp_path), *words)["sustained"]
    windows = found["windows"]
    assert len(windows) >= 2
    assert windows[0]["start_ns"] < 1e7
    assert sum(window["inferences"] for window in windows) <= found["inferences"]
    for window in windows:
        assert window["wall_ns"] >= 0.2e9
        assert 0 < window["p50_ns"] <= window["p90_ns"]
        assert window["busy_s"] > 0


def test_a_cold_load_says_how_much_of_the_file_was_in_memory(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    found = report_of(runner, *start(tflite_net, tmp_path), "--cold")
    assert -1 <= found["cached_share"] <= 1  # a file system in memory keeps it all
    assert "cached_share" not in report_of(runner, *start(tflite_net, tmp_path))


def test_memory_beyond_the_limit_is_refused(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    words = [str(runner), *start(tflite_net, tmp_path), "--memory-limit", "200000"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert "failed to map segment" in done.stderr


@pytest.mark.parametrize("name", ["onnx_net", "tflite_net"])
def test_a_second_load_is_the_models_own(name: str, runner: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    net: Net = request.getfixturevalue(name)
    plain, again = (report_of(runner, *start(net, tmp_path), *more) for more in ([], ["--load-again"]))
    assert 0 < again["reload_ns"] < again["load_ns"]  # the library is opened once
    assert again["reload_cpu_ns"] > 0
    memory = again["memory"]
    assert 0 < memory["before_load_bytes"] < memory["after_load_bytes"] <= memory["after_first_bytes"] <= memory["peak_bytes"]
    assert again["first_inference_ns"] > 0
    assert again["outputs"] == plain["outputs"]
    assert "reload_ns" not in plain


def test_temperatures_and_clocks_are_told(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    """A tree of files as Linux has them; this machine may have no sensors."""
    files = {
        "class/thermal/thermal_zone10/type": "gpu-thermal\n", "class/thermal/thermal_zone10/temp": "39000\n",
        "class/thermal/thermal_zone2/type": "cpu-thermal\n", "class/thermal/thermal_zone2/temp": "51234\n",
        "class/thermal/thermal_zone3/type": "broken\n", "class/thermal/thermal_zone3/temp": "none\n",
        "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000\n",
        "devices/system/cpu/cpufreq/policy0/affected_cpus": "0 1 2 3\n",
        "devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)
    words = [*start(tflite_net, tmp_path), "--repeat", "2", "--system"]
    expected = {
        "temperatures": [{"zone": "cpu-thermal", "celsius": 51.234}, {"zone": "gpu-thermal", "celsius": 39}],
        "clocks": [{"processors": "0 1 2 3", "governor": "schedutil", "mhz": 1500}],
    }
    nothing: dict[str, Any] = {"temperatures": [], "clocks": []}
    for folder, told in (("sys", expected), ("absent", nothing)):
        found = report_of(runner, *words, str(tmp_path / folder))["conditions"]
        assert found["processors"] >= 1
        assert found["cpu_ns"] >= 0
        assert found["wall_ns"] > 0
        for moment in ("before", "after"):
            assert {key: found[moment][key] for key in told} == told
        assert 0 < found["before"]["busy_s"] <= found["after"]["busy_s"]


def test_a_large_set_passes_through_little_memory(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    """60 MB of samples: they are read one by one."""
    path, inputs = tflite_net
    shape = inputs["image"].shape
    count = 60_000_000 // inputs["image"].size
    file = np.lib.format.open_memmap(tmp_path / "many.npy", mode="w+", dtype=np.int8, shape=(count, *shape))
    file[-1] = inputs["image"]
    file.flush()
    words = [str(path), "--library", str(library_of("tflite")), "--input", f"image={tmp_path / 'many.npy'}", "--stacked"]
    found = report_of(runner, *words, "--output-dir", str(tmp_path / "out"))
    assert found["sample_count"] == count
    assert found["memory"]["peak_bytes"] - found["memory"]["after_load_bytes"] < 20_000_000
    rows = np.load(tmp_path / "out" / "output_0.npy", mmap_mode="r")
    alone = report_of(runner, *start(tflite_net, tmp_path), "--output-dir", str(tmp_path / "alone"))
    assert alone["sample_count"] == 1
    assert np.array_equal(rows[-1], np.load(tmp_path / "alone" / "output_0.npy"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a.tflite", "--beside", "b.tflite"], "say --rounds N"),
        (["a.tflite", "--rounds", "3", "--repeat", "5"], "exclude each other"),
        (["a.tflite", "--rounds", "0"], "--rounds is '0'"),
        (["a.tflite", "--rounds", "3", "--block-ms", "-1"], "a number of milliseconds above 0"),
    ],
)
def test_rounds_that_are_refused(runner: Path, words: list[str], complaint: str) -> None:
    done = subprocess.run([str(runner), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
