"""Drivers of the stages: an in-memory store, hand-made events, crashes at failpoints."""
