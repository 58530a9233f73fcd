"""dstrun: a command-line runner for experiments in sparse training of neural networks."""

__version__ = "0.1.0"
