"""Candidates for growth and their scores: the highest are grown first."""
