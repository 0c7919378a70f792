"""Tasks of the two stages, their manager, their consumer group and the worker process."""
