"""The command line: verbs, flags and help; without a verb it starts runs."""
