"""Logs of the oracle's worlds, forms of events, and the oracle held against results by hand."""
