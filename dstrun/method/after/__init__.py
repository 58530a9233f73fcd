"""Prune a trained network, then train what is left a little more."""
