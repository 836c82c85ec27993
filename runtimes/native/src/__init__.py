"""C++17 sources of edgekit-runner: no Python."""
