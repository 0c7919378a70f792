"""Restores the committed offsets of a group that another program has overwritten, or that have expired."""
