"""Whole training procedures: what happens to the topology before, during and after training."""
