"""The nets, one file a family; each file has a tuple ``ARCHITECTURES``."""
