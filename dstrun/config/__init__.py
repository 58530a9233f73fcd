"""What a run is told: options, settings and words, composed and checked. No torch."""
