"""What a run costs: FLOPs counted, memory measured and predicted."""
