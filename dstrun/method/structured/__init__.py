"""Fewer channels instead of fewer connections: references."""
