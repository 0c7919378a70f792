"""Conversion of foreign logs."""
