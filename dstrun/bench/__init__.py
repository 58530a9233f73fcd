"""Benchmarks of sparse layers on this machine: paired measurements that users can repeat."""
