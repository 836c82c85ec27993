"""Model file -> program, one file per format. See :class:`edgekit.core.plugins.Source`."""
