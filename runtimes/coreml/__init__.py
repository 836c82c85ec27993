"""Core ML: native on macOS, a reference executor everywhere.

::

    .mlpackage ──package──> Program ──executor──> Executable ──reference──> Session
                messages, weights     ops/…: kernels by family       └────replay──> layer answers
                    └──cut──> a package whose layers stand alone, for native Core ML

The reference executor has the documented semantics of MIL operations. It is not the Neural Engine: Apple's runtimes
fuse, accumulate and round in ways of their own, and its speed says nothing about a phone.
"""
