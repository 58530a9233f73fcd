"""Formats in which training stores activations, weights and optimizer state, and recomputation."""
