"""Model file -> listing, one file per format. See :class:`edgekit.core.listing.Inspector`."""
