"""Training data of Fashion-MNIST, as the example ``fashion`` yields it."""

from __future__ import annotations

from borrowed import borrow

_fashion = borrow("fashion", "training")

training = _fashion.training
validation = _fashion.validation
