"""The configuration groups: one folder a group, one file an option (shipped as ``dstrun.conf``)."""
