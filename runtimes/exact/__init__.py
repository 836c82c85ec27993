"""Reference integer kernels with one set of rounding rules per runtime, and executors that walk a real file with them."""
