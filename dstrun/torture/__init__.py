"""Inject faults into small runs and compare the results with undisturbed ones (``docs/torture.md``)."""
