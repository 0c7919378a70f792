"""The online trainer, its checkpoints and its instrumentation."""
