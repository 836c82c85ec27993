"""Operations that coremltools registers and the reference executor has no kernel for, and why none is needed.

coremltools' registry holds operations for its own use between reading a model and writing a package. None of these is in a
package that its converters write.
"""

from __future__ import annotations

__all__ = ["ABSENT"]

_COMPLEX = "lowered to real operations before a package is written (pass common::lower_complex_dialect_ops)"
_TORCH_UPSAMPLE = "replaced by a core operation before a package is written (pass torch::torch_upsample_to_core_upsample)"
_TF_LSTM = "replaced by core operations before a package is written (passes tensorflow::tf_lstm_to_core_lstm, expand_tf_lstm)"

ABSENT: dict[str, str] = {
    "_const_symbolic": "a constant whose value is a symbol, for coremltools' own passes and tests; a package has no form for it",
    **dict.fromkeys(
        (
            "complex", "complex_abs", "complex_fft", "complex_fftn", "complex_ifft", "complex_ifftn", "complex_imag",
            "complex_irfft", "complex_irfftn", "complex_real", "complex_rfft", "complex_rfftn", "complex_shape", "complex_stft",
        ),
        _COMPLEX,
    ),
    "coreml_update_state": "written to a package as write_state and read_state, which are run",
    "tf_lstm_block": _TF_LSTM,
    "tf_lstm_block_cell": _TF_LSTM,
    "tf_make_list": "replaced by make_list before a package is written (pass tensorflow::backfill_make_list_elem_type)",
    "torch_tensor_assign": "replaced by core operations before a package is written (pass torch::torch_tensor_assign_to_core)",
    "torch_upsample_bilinear": _TORCH_UPSAMPLE,
    "torch_upsample_nearest_neighbor": _TORCH_UPSAMPLE,
}  # fmt: skip
"""Operation type -> why it has no kernel."""
