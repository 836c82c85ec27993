"""What the benchmarks share: machine facts, results on disk, tables, and the peers they compare with."""
