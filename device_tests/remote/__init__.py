"""Jobs on devices that are not this machine: a link carries them, an agent there executes them, and nothing stays behind."""
