"""The device lab: measure artifacts on devices and decide."""
