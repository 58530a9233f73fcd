"""Weights computed in every forward pass from stored ones."""
