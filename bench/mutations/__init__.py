"""Mutated events through the live system: every one has an outcome, and no process dies or grows."""
