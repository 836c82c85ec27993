"""One form for each thing the quantizer must recognise: :mod:`form` runs the passes, the other modules are the passes."""
