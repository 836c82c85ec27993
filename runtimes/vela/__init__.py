"""Arm's Vela: what an Ethos-U NPU takes for a ``.tflite`` file, by Arm's own compiler and its cycle model."""
