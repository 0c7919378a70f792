"""Other stream processors on the same log and broker."""
