"""Simulates sparsity: dense storage, kept at zero outside the topology."""
