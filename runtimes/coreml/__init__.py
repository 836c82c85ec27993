"""Core ML: native on macOS, a reference executor elsewhere."""
