"""Names of instruction set extensions: a profile's, and those that systems use for the same."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["instructions_of"]

_NAMES = {
    "neon": ("neon", "asimd"),
    "fp16": ("asimdhp", "fp16"),
    "dotprod": ("asimddp", "dotprod"),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
    "sve": ("sve",),
    "sve2": ("sve2",),
    "sme2": ("sme2",),
    "sse4.2": ("sse4_2",),
    "avx2": ("avx2",),
    "avx512f": ("avx512f",),
    "avx512-vnni": ("avx512_vnni",),
    "avx-vnni": ("avx_vnni",),
    "amx-int8": ("amx_int8",),
}
"""Profile's name -> names in Linux's /proc/cpuinfo (Documentation/arch/arm64/elf_hwcaps.rst, x86 cpufeatures.h) and macOS's
hw.optional.arm.FEAT_*, in small letters."""


def instructions_of(facts: Mapping[str, str]) -> tuple[str, ...]:
    """The extensions that matter to kernels, as profiles call them; empty where the device does not tell.

    Args:
        facts: What the device says of itself.

    >>> instructions_of({"instructions": "fp asimd aes asimdhp asimddp"})
    ('neon', 'fp16', 'dotprod')
    """
    said = set(facts.get("instructions", "").lower().split())
    # macOS lists optional features alone, and NEON is none of them on a Mac.
    known = ("neon",) if said and facts.get("system") == "Darwin" else ()
    return (*known, *(name for name, words in _NAMES.items() if name not in known and said & set(words)))
