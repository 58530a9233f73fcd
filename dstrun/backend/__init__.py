"""How a sparse layer is stored and computed."""
