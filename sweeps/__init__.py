"""Sweeps of published studies: one file a study, run by ``dstrun -cn NAME`` (shipped as ``dstrun.sweeps``)."""
