"""Code that loads, feeds, runs and self-tests an artifact, in the language of the app it goes into."""

from edgekit.snippets.languages import LANGUAGES
from edgekit.snippets.render import render

__all__ = ["LANGUAGES", "render"]
