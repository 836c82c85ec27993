"""``python -m edgekit.cli``: the command line where the ``edgekit`` script is not on the path."""

from __future__ import annotations

from edgekit.cli import main

if __name__ == "__main__":
    main(prog_name="edgekit")
