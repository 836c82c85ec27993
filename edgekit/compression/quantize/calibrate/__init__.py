"""What tensors hold on the calibration data: :mod:`observe` runs the graph, :mod:`estimate` and :mod:`clipping` make ranges."""
