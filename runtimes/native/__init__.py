"""edgekit-runner: a small C++ program that runs and times models where there is no Python, and its driver.

The program opens a runtime's shared library when it starts: LiteRT's or TensorFlow Lite's for ``.tflite``, ONNX Runtime's for
``.onnx`` and ``.ort``. The sources lie in :mod:`edgekit.runtimes.native.src`; ``edgekit runner build`` compiles them.
"""
