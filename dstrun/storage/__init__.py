"""In which form training keeps its numbers until they are used, or whether it computes them again."""
