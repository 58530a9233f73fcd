"""Always sparse: stores and computes the active connections alone (``docs/sparse.md``)."""
