"""The vocabulary every stage shares. Nothing in here imports another part of edgekit.

Read in this order: :mod:`task` (what the user brings), :mod:`recipe` (the plan), :mod:`contract`
(the numbers the plan decided), :mod:`compressed` (the result), :mod:`artifact` (a file for one
target), :mod:`profile` (a device), :mod:`measurement` and :mod:`verdict` (what was found there).
"""
