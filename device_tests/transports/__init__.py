"""How files and commands reach a device."""
