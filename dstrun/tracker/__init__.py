"""Services that follow a run while it trains: Weights & Biases."""
