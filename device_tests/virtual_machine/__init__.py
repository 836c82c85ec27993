"""A whole 64-bit Arm machine, emulated: Debian's kernel and programs, an SSH server on loopback, nothing from outside."""
