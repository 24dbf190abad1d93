"""Looking inside: reports on a run."""
