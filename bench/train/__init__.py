"""`python -m bench.train`: training speed of every model."""
