"""Dynamic sparse training."""
