"""The end of what a file can be read to."""


class CorruptLogError(Exception):
    """The rest of a file cannot be read; what came before it has been handed out."""
