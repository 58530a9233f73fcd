"""What Hydra finds of dstrun: its launchers."""
