"""In which form training keeps its numbers between the moments in which it computes with them."""
