"""Configuration of a run: options, settings and overrides, composed and checked. No torch."""
