"""Makes the cases beside it importable from the tests of the kernels."""
