"""The files of a run, and its mirror on Weights & Biases."""
