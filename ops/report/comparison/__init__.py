"""Whether the models are good: against baselines, each other and another run."""
