"""Prune a trained network, then retrain it."""
