"""Kernels of MIL operations, one file per family, each registered in :mod:`edgekit.runtimes.coreml.ops.table`.

Import :mod:`edgekit.runtimes.coreml.ops.library` to have them all.
"""
