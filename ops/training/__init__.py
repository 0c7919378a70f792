"""Replays and live training: evaluated sinks, quality publishing, failure markers."""
