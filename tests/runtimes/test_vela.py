"""Vela's estimates read back: their arithmetic, what stays on the CPU and why, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ethosu.vela", reason="pip install 'edgekit[micro]' runs this")

from edgekit.core.errors import ConversionError, IntegrityError, UnsupportedOpError, UsageError, WorkerError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.operator_profile import OperatorProfile, Profiler
from edgekit.core.plugins import Appraiser, Runtime
from edgekit.runtimes.tflite_micro.runtime import RUNTIME as MICRO
from edgekit.runtimes.vela import runtime as vela_runtime
from edgekit.runtimes.vela.compilation import compile_model
from edgekit.runtimes.vela.configuration import MACS_PER_CYCLE, Configuration, read_configuration
from edgekit.runtimes.vela.report import AREAS, read_report
from edgekit.runtimes.vela.runtime import RUNTIME
from tests.runtimes.native.tflite_models import Graph, int8_net, schema

CONVOLUTION_MACS = 9 * 8 * 16 * 3 * 3 * 3


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(int8_net())
    return path


def float_edges() -> bytes:
    """The ordinary export: float at both ends, so that quantizing and dequantizing stay on the CPU."""
    random, graph = np.random.default_rng(0), Graph()
    x = graph.tensor("signal", "float32", (1, 6, 6, 8))
    inside = graph.tensor("signal, as int8", "int8", (1, 6, 6, 8), scale=0.03, zero=-4)
    weights = graph.tensor("w", "int8", (8, 3, 3, 8), data=random.integers(-127, 128, (8, 3, 3, 8), np.int8), scale=0.01)
    bias = graph.tensor("b", "int32", (8,), data=random.integers(-90, 90, 8).astype(np.int32), scale=0.0003)
    hidden = graph.tensor("layers.0, relu", "int8", (1, 6, 6, 8), scale=0.05)
    y = graph.tensor("output", "float32", (1, 6, 6, 8))
    kinds, options = schema.BuiltinOptions, schema.Conv2DOptionsT()
    options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
    graph.operator(schema.BuiltinOperator.QUANTIZE, [x], [inside], schema.QuantizeOptionsT(), kinds.QuantizeOptions)
    graph.operator(schema.BuiltinOperator.CONV_2D, [inside, weights, bias], [hidden], options, kinds.Conv2DOptions)
    graph.operator(schema.BuiltinOperator.DEQUANTIZE, [hidden], [y], schema.DequantizeOptionsT(), kinds.DequantizeOptions)
    return graph.finish([x], [y])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.tflite"
    path.write_bytes(float_edges())
    return path


COMPILED: dict[tuple[bytes, Configuration], Any] = {}


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vela is called once for a file and a configuration, however many tests look at its report."""

    def compile_once(path: Path, configuration: Configuration) -> Any:
        key = (path.read_bytes(), configuration)
        if key not in COMPILED:
            COMPILED[key] = compile_model(path, configuration)
        return COMPILED[key]

    monkeypatch.setattr(vela_runtime, "compile_model", compile_once)


def appraised(path: Path, **options: object) -> dict[str, Measurement]:
    found = RUNTIME.appraise(path, options=options)
    assert {one.evidence for one in found} == {Evidence.ESTIMATED}
    return {one.name: one for one in found}


def test_is_a_runtime_an_appraiser_and_a_profiler() -> None:
    assert isinstance(RUNTIME, Runtime)
    assert isinstance(RUNTIME, Appraiser)
    assert isinstance(RUNTIME, Profiler)


@pytest.mark.parametrize(
    "accelerator", ["ethos-u55-128", pytest.param("ethos-u65-512", marks=pytest.mark.proof), "ethos-u85-256"]
)
def test_numbers_hang_together(net: Path, accelerator: str) -> None:
    found = appraised(net, accelerator=accelerator)
    clock_mhz = float(found["latency"].note.split(" at ")[1].split(" MHz")[0])
    assert found["latency"].value == pytest.approx(found["cycles"].value / clock_mhz / 1e3)
    assert found["cycles"].value >= max(found[name].value for name in found if name.startswith("cycles_"))
    assert CONVOLUTION_MACS <= found["macs"].value <= 1.2 * CONVOLUTION_MACS  # Vela computes a mean as a convolution
    expected = found["macs"].value / found["cycles"].value / MACS_PER_CYCLE[accelerator]
    assert found["mac_utilisation"].value == pytest.approx(expected)
    assert found["mac_utilisation"].value < 1
    assert found["npu_share"].value == 1
    assert "CPU" not in found["latency"].note
    assert found["arena"].value >= 9 * 8 * 16
    assert found["flash"].value > 16 * 27


def test_more_multipliers_take_fewer_cycles(net: Path) -> None:
    cycles = [appraised(net, accelerator=f"ethos-u55-{macs}")["cycles_npu"].value for macs in (32, 128)]
    assert cycles[0] > 2 * cycles[1]


def test_operators_on_the_cpu_are_named_with_the_reason(mixed: Path) -> None:
    found = appraised(mixed)
    assert found["npu_share"].value == pytest.approx(1 / 3)
    assert found["npu_share"].note.startswith("1 of 3 operators; on the CPU: ")
    for name in ("latency", "npu_share"):
        assert "Quantize 'signal, as int8' (Operation has tensor with unsupported DataType Float32" in found[name].note
        assert "Dequantize 'output' (Unsupported opType)" in found[name].note


def test_the_arena_is_that_of_the_plan_in_the_compiled_file(mixed: Path) -> None:
    _, compiled = compile_model(mixed, read_configuration({}))
    file = schema.ModelT.InitFromPackedBuf(compiled, 0)
    (place,) = (entry.buffer for entry in file.metadata if entry.name == b"OfflineMemoryAllocation")
    _, _, count, *offsets = np.frombuffer(bytes(bytearray(file.buffers[place].data)), np.int32)
    tensors = file.subgraphs[0].tensors
    assert count == len(tensors)
    widths = {schema.TensorType.FLOAT32: 4}
    ends = [
        offset + np.prod(one.shape) * widths.get(one.type, 1) for one, offset in zip(tensors, offsets, strict=True) if offset >= 0
    ]
    assert max(ends) == appraised(mixed)["arena"].value
    assert min(ends) < max(ends)
    assert {one.name for one, offset in zip(tensors, offsets, strict=True) if offset >= 0} >= {b"signal", b"output"}


def test_another_clock_scales_time_and_says_so(net: Path) -> None:
    usual, slower = appraised(net), appraised(net, clock_mhz=400)
    assert slower["cycles"].value == usual["cycles"].value
    assert slower["latency"].value == pytest.approx(usual["latency"].value * 500 / 400)
    assert "at 400 MHz (the configuration's own is 500 MHz" in slower["latency"].note


def test_weights_in_the_memory_of_the_arena_count(net: Path) -> None:
    alone, together = appraised(net, memory_mode="Shared_Sram"), appraised(net, memory_mode="Sram_Only")
    assert "weights" not in alone["arena"].note
    assert "with the weights, which lie in the same memory" in together["arena"].note
    assert together["arena"].value == together["used_sram"].value + together["used_on_chip_flash"].value
    assert together["arena"].value > 16 * 27


def test_size_takes_no_more_memory_than_performance(mixed: Path) -> None:
    assert appraised(mixed, optimise="Size")["used_sram"].value <= appraised(mixed, optimise="Performance")["used_sram"].value


def test_a_float_file_is_not_for_an_npu(tmp_path: Path) -> None:
    path, graph = tmp_path / "float.tflite", Graph()
    x, y = graph.tensor("x", "float32", (1, 4)), graph.tensor("total", "float32", (1, 4))
    graph.operator(schema.BuiltinOperator.ADD, [x, x], [y], schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)
    path.write_bytes(graph.finish([x], [y]))
    with pytest.raises(UnsupportedOpError, match=r"no operator would run on the ethos-u55-128.*Add 'total' \(.*Float32"):
        RUNTIME.appraise(path, options={})
    with pytest.raises(UnsupportedOpError, match="no operator would run"):
        RUNTIME.profile(path, {"x": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"accelerator": "ethos-u55-129"}, "known: ethos-u55-32, .*Did you mean 'ethos-u55-12"),
        ({"system_config": "Ethos_U55_Deep_Embeded"}, "holds Ethos_U55_Deep_Embedded, .*Did you mean 'Ethos_U55_Deep_Embedded'"),
        (
            {"system_config": "Ethos_U65_High_End"},
            "the accelerator is 'ethos-u55-128': for an Ethos-U55 there are Ethos_U55_Deep",
        ),
        ({"memory_mode": "Shared"}, "option 'memory_mode' is 'Shared'; Arm/vela.ini holds Sram_Only"),
        ({"optimise": "Speed"}, "known: Performance, Size"),
        ({"clock_mhz": "fast"}, "'fast'; it must be a number of MHz"),
        ({"clock_mhz": 0}, "'0'; it must be"),
        ({"clock_mhz": float("inf")}, "'inf'; it must be"),
        ({"arena_cache_size": -1}, "'-1'; it must be a number of bytes"),
        ({"config": "/nowhere/vela.ini"}, "/nowhere/vela.ini', which cannot be read: No such file"),
        ({"npu": "u55"}, "no option 'npu'; known: accelerator, system_config"),
    ],
)
def test_impossible_configurations_are_refused_before_vela(net: Path, options: dict[str, object], complaint: str) -> None:
    for call in (lambda: RUNTIME.load(net, options=options), lambda: RUNTIME.appraise(net, options=options)):
        with pytest.raises(UsageError, match=complaint):
            call()


def test_a_chip_vendors_own_file(net: Path, tmp_path: Path) -> None:
    arms = vela_runtime.read_configuration({})
    ini = tmp_path / "vendor.ini"
    ini.write_text(
        "[System_Config.Board]\ncore_clock=160e6\naxi0_port=Sram\naxi1_port=OffChipFlash\nSram_clock_scale=1.0\n"
        "OffChipFlash_clock_scale=0.5\nOffChipFlash_burst_length=128\n"
        "[Memory_Mode.Base]\nconst_mem_area=Axi1\narena_mem_area=Axi0\ncache_mem_area=Axi0\n"
        "[Memory_Mode.Mine]\ninherit=Memory_Mode.Base\narena_cache_size=65536\n"
    )
    found = appraised(net, config=str(ini), system_config="Board", memory_mode="Mine")
    assert "at 160 MHz: ethos-u55-128, Board, Mine" in found["latency"].note
    assert arms.system_config == "Ethos_U55_High_End_Embedded"
    with pytest.raises(UsageError, match=r"vendor\.ini holds Board\."):
        appraised(net, config=str(ini))
    ini.write_text("no section = 1")
    with pytest.raises(UsageError, match="is no configuration file"):
        appraised(net, config=str(ini), system_config="Board", memory_mode="Mine")


def test_what_vela_refuses_is_told_in_its_words(net: Path) -> None:
    with pytest.raises(ConversionError, match=r"Vela 5\.2\.0 refuses it for ethos-u55-128.*arena_mem_area=OffChipFlash"):
        RUNTIME.appraise(net, options={"memory_mode": "Dedicated_Sram"})


def test_a_crash_of_vela_is_an_error(net: Path) -> None:
    net.write_bytes(net.read_bytes()[:1500])
    with pytest.raises(IntegrityError, match=r"net\.tflite"):
        RUNTIME.appraise(net, options={})
    with pytest.raises((WorkerError, ConversionError), match=r"net\.tflite: Vela 5\.2\.0"):  # without the check before it
        compile_model(net, read_configuration({}))


@pytest.mark.parametrize("name", ["my.net.v2", "a net, with commas.tflite"])
def test_any_name_of_a_file(net: Path, name: str) -> None:
    link = net.with_name("link.tflite")
    link.symlink_to(net.rename(net.with_name(name)))
    report, compiled = compile_model(link, read_configuration({}))
    assert report.layers[0].type == "Conv2D"
    assert compiled[4:8] == b"TFL3"


def test_a_compiled_file_cannot_be_compiled_again(net: Path, tmp_path: Path) -> None:
    _, compiled = compile_model(net, read_configuration({}))
    again = tmp_path / "net_vela.tflite"
    again.write_bytes(compiled)
    for call in (lambda: RUNTIME.appraise(again, options={}), lambda: MICRO.load(again)):
        with pytest.raises(UnsupportedOpError, match=r"net_vela\.tflite was compiled by Vela already"):
            call()


def test_answers_are_those_of_tflm(net: Path) -> None:
    ours, micro = RUNTIME.load(net, options={"accelerator": "ethos-u55-256"}), MICRO.load(net)
    given = {"image": np.random.default_rng(0).integers(-128, 128, (1, 9, 8, 3), np.int8)}
    np.testing.assert_array_equal(ours.run(given)["scores"], micro.run(given)["scores"])
    assert RUNTIME.version().startswith("5.2.0, answers by tflite-micro ")


def test_every_operator_has_its_share_of_the_time(mixed: Path) -> None:
    found = RUNTIME.profile(mixed, {"signal": np.zeros((1, 6, 6, 8), np.float32)}, options={})
    assert found.evidence is Evidence.ESTIMATED
    assert [(one.name, one.type, one.kind, one.provider, one.is_fallback) for one in found.operators] == [
        ("signal, as int8", "Quantize", "conversion", "cpu", True),
        ("layers.0, relu", "Conv2D", "integer", "ethos-u55-128", False),
        ("output", "Dequantize", "conversion", "cpu", True),
    ]
    assert found.operator_ms == pytest.approx(found.inference_ms)
    assert sum(one.share for one in found.operators) == pytest.approx(1)
    assert OperatorProfile.parse(found.model_dump(mode="json"), source="itself") == found


SUMMARY = {
    "experiment": "default", "core_clock": "500000000.0", "weights_storage_area": "Off-chip Flash", "nn_macs": "1000",
    "feature_map_storage_area": "SRAM", "total_original_weights": "10", "total_npu_encoded_weights": "12", "cycles_npu": "20",
    "cycles_total": "30", **{f"cycles_{area}_access": "0" for area in AREAS}, **{f"{area}_memory_used": "0.0" for area in AREAS},
} | {"sram_memory_used": "1.5", "off_chip_flash_memory_used": "2.0"}  # fmt: skip
LAYERS_HEAD = (
    "Original Operator,NNG Operator,Target,Staging Usage,Peak% (Staging),Op Cycles,Network% (cycles),NPU,SRAM AC,DRAM AC,"
    "OnFlash AC,OffFlash AC,MAC Count,Network% (MAC),Util% (MAC),Name"
)


def test_a_name_with_commas_is_one_name() -> None:
    rows = "Conv2D,Conv2D,NPU,1,2.0,30,100.0,20,0,0,0,0,1000,100.0,3.0,a,b;c,d\n"
    summary = ",".join(SUMMARY) + "\n" + ",".join(SUMMARY.values())
    found = read_report(summary, f"{LAYERS_HEAD}\n{rows}", "", version="5.2.0")
    assert found.layers[0].name == "a,b;c,d"
    assert found.used_bytes == {"sram": 1536, "dram": 0, "on_chip_flash": 0, "off_chip_flash": 2048}


CELLS = "1,2.0,30,100.0,20,0,0,0,0,1000,100.0,3.0,a"


@pytest.mark.parametrize(
    ("summary", "layers"),
    [
        ({name: cell for name, cell in SUMMARY.items() if name != "cycles_npu"}, LAYERS_HEAD),
        (SUMMARY | {"feature_map_storage_area": "L2 cache"}, LAYERS_HEAD),
        (SUMMARY | {"cycles_total": "many"}, LAYERS_HEAD),
        (SUMMARY, LAYERS_HEAD.replace("Op Cycles", "Cycles")),
        (SUMMARY, f"{LAYERS_HEAD}\nConv2D,Conv2D,GPU,{CELLS}"),
        (SUMMARY, f"{LAYERS_HEAD}\nConv2D,Conv2D,NPU,1"),
        (SUMMARY, ""),
        ({}, LAYERS_HEAD),
    ],
)
def test_another_form_of_the_report_is_no_number(summary: dict[str, str], layers: str) -> None:
    with pytest.raises(ConversionError, match=r"Vela 6\.0 reports in another form than 5\.2\.0"):
        read_report(",".join(summary) + "\n" + ",".join(summary.values()), layers, "", version="6.0")
