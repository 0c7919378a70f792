"""The error of a log file that is only partly readable."""


class CorruptLogError(Exception):
    """The rest of a file cannot be read; everything before it has been yielded."""
