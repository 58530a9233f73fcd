"""Experiment trackers: one module each, found by its name."""
