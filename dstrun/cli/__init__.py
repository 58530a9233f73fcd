"""What is typed: verbs, flags and help; a command line without a verb starts runs."""
