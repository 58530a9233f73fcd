"""What this machine does with sparse layers: paired measurements that a user can repeat."""
