"""Train, prune and rewind again and again."""
