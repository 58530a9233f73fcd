"""What Python code has of the command line: runs, what they left, and methods for loops of its own."""
