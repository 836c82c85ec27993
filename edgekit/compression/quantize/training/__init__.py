"""Quantization-aware training: the trainer's graph rounds where the shipped program rounds, and learns to live with it.

The order of the data flow: :mod:`twin` (canonical graph + plan + ranges -> a trainable copy that rounds by
:mod:`fake_quantize`) -> :mod:`edgekit.compression.training` (the task's loss and data) -> :mod:`session` (trained weights and
ranges go through the same lowering as after calibration).

Batch norms are folded before training and never updated: one of the ways of Nagel et al. (2021, arXiv:2106.08295,
section 4.2), where it trains as well as keeping statistics alive, and the only one in which the net that is trained, the
net that is evaluated and the net that is shipped are one function.
"""

from __future__ import annotations
