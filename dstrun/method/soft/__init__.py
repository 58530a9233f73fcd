"""Weights computed in every forward pass from others that are kept."""
