"""The command line for Python code: training runs, reading their results, and methods in training loops of your own."""
