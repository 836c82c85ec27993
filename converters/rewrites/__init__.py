"""What vendors' converters choke on, rewritten before they see the program; one small file per idea.

Each rewrite is checked by number on the golden inputs and listed in the artifact (``Artifact.rewrites``).
"""

from __future__ import annotations

from edgekit.converters.rewrites.apply import carry_out, rewrite_for

__all__ = ["carry_out", "rewrite_for"]
