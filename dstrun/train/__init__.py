"""The training loop and what it needs: evaluation, precision, random streams, checkpoints."""
