"""Tests of the check of a log."""
