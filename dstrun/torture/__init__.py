"""Injects faults into small runs and holds what comes out against undisturbed ones (``docs/torture.md``)."""
