"""The rankers, the online trainer, its checkpoints and the sketches of its quality."""
