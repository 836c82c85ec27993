"""Scales for which executors round alike: :mod:`align` chooses them, :mod:`check` proves it; :mod:`rational`, :mod:`table`."""
