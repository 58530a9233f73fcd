"""When the topology is updated, and which fraction of it."""
