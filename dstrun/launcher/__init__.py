"""Where the runs of a sweep train: processes of this machine, or jobs of a SLURM cluster."""
