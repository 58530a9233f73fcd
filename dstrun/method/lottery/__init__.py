"""Train, prune and rewind repeatedly."""
