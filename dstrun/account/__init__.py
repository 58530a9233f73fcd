"""Costs of a run: FLOPs counted, memory measured and predicted."""
