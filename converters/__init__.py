"""Program -> artifact, one file per target."""
