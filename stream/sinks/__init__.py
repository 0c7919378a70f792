"""Where training examples go: files, digests, heavy hitters, dead letters."""
