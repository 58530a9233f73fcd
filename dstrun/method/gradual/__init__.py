"""Prune while training, from every connection to few."""
