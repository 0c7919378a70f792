"""`python -m bench.quality`: the models in simulated worlds with known click probabilities."""
