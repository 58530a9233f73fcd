"""The environment of training: processes, memory, external files, devices, random streams and the terminal."""
