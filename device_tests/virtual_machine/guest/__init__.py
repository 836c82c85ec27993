"""What the virtual machine is given to start with: scripts and settings of its own."""
