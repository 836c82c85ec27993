"""Every operation coremltools registers is run, or there is a reason why it need not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.converters.coreml import quiet_coremltools
from edgekit.runtimes.coreml.ops.absent import ABSENT
from edgekit.runtimes.coreml.ops.library import supported
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry


def test_every_operation_is_run_or_explained() -> None:
    core, dialect = set(SSAOpRegistry.core_ops), set(SSAOpRegistry.dialect_ops)
    run, absent = set(supported()), set(ABSENT)
    assert core - run - absent == set()
    assert run & absent == set()
    assert dialect <= absent  # those of a converter's own are registered when it is imported
    assert len(core & run) / len(core) >= 0.95
    assert run - core == {"write_state"}  # what coreml_update_state is written as
    assert all(reason for reason in ABSENT.values())


def test_complex_operations_are_lowered_before_a_package_is_written(save_program: Callable[..., Path]) -> None:
    @mb.program(input_specs=[mb.TensorSpec((2, 8)), mb.TensorSpec((2, 8))], opset_version=ct.target.iOS17)
    def program(x, y):
        joined = mb.complex(real_data=x, imag_data=y)
        spectrum, real = mb.complex_fft(data=joined), mb.complex_rfft(data=x)
        back, plane = mb.complex_ifft(data=spectrum), mb.complex_ifftn(data=mb.complex_fftn(data=joined))
        return (
            mb.complex_abs(x=spectrum), mb.complex_real(data=back), mb.complex_imag(data=back), mb.complex_irfft(data=real),
            mb.complex_real(data=plane), mb.complex_irfftn(data=mb.complex_rfftn(data=x)),
        )  # fmt: skip

    path = save_program(program)
    types = {operation.type for operation in read_package(path).operations}
    assert not any(kind.startswith("complex") for kind in types)
    assert types <= set(supported())
    x, y = np.random.default_rng(0).standard_normal((2, 2, 8)).astype(np.float32)
    session = RUNTIME.load(path)
    found = session.run({"x": x, "y": y})
    expected = (np.abs(np.fft.fft(x + 1j * y)), x, y, x, x, x)
    for spec, wanted in zip(session.outputs, expected, strict=True):
        np.testing.assert_allclose(found[spec.name], wanted, atol=1e-5)
