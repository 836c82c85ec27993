"""TensorFlow Lite for Microcontrollers (TFLM) on this machine: what an int8 file answers on a microcontroller, and its arena."""
