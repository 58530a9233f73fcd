"""In which form training keeps its numbers: ``activations`` between the forward pass and the backward one."""
