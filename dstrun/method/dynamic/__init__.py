"""Dynamic sparse training with procedures of its own."""
