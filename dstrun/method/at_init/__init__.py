"""Prune before the first step, by scores of the untrained network."""
