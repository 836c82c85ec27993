"""Device profiles that ship with edgekit."""
