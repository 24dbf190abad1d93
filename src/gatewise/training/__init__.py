"""Training: from a text and a configuration to a run folder."""
