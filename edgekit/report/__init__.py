"""A validation report as terminal table, HTML page and JSON."""
