"""How many connections each layer gets: shapes x sparsity -> exact active counts."""
