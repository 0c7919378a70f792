"""The embedded runner: logs in files, both stages in one process, checkpoints."""
