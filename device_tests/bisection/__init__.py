"""The first layer at which a file computes otherwise than the program it was made from."""
