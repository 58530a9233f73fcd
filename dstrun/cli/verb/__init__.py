"""One file a verb of the command line: its words, and what it prints; each has ``main(words) -> exit code``."""
