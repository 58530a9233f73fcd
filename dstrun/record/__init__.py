"""What a run leaves on disk, and its mirror on Weights & Biases."""
