"""Scores of active connections: the lowest are pruned first."""
