"""Figures that a change which is not numerical must not move."""
