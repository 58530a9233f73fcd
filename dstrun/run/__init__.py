"""Whole runs: assembled, trained to a record, planned, predicted and migrated."""
