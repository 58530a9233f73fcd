"""Structured baselines: fewer channels instead of fewer connections."""
