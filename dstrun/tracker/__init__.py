"""Services that follow a run while it trains: a module each, found by its name."""
