"""The rankers, and the interface that the trainer trains them through."""
