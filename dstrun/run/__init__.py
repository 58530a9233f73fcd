"""Whole runs: put together, trained to a record, planned, predicted and carried over."""
