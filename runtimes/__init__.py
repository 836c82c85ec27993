"""Artifact + inputs -> outputs, one file per runtime."""
