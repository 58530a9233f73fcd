"""The phases of ``benchmarks/gpu.py``, a module each, and what they share."""
