"""What lies around a training: processes, memory, files of others, devices, random streams and the terminal."""
