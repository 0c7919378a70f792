"""Sinks: consumers of training examples (file, digest, most frequent queries), and dead letters."""
