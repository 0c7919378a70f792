"""`python -m bench.world`: simulated worlds, their ceilings, drift and learning curves."""
