"""Ranking candidates by a run's newest checkpoint and state."""
