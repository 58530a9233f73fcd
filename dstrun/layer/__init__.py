"""One sparse layer as methods see it: which connections it has, how they relate to activations, and how it grows."""
