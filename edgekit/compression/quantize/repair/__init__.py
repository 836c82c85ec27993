"""Integers chosen by what they do to outputs: :mod:`layers` repairs each layer on the walk of :mod:`sequential`."""
