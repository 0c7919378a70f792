"""Drivers of the stages: a store in memory, events by hand, crashes at named points."""
