"""Replays and live training: sinks with models, quality publishing, failure markers."""
