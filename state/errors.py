"""The one tree of errors; each message names the thing, the value seen and what to do next."""


class PrectrError(Exception):
    """Something went wrong that the user can act on; the command ends with exit code 1."""


class UsageError(PrectrError):
    """The command, a flag or a setting is wrong; the command ends with exit code 2."""


class ConfigError(UsageError):
    """A setting is unknown, has the wrong type or is out of its range."""


class InputError(PrectrError):
    """A file of events cannot be read; the message names the file and the place in it."""


class StateError(PrectrError):
    """A state store cannot be opened or belongs to another stage, partition or configuration."""


class CheckpointError(PrectrError):
    """A checkpoint is damaged, of another format version, or of another model or configuration."""


class TrainingError(PrectrError):
    """Training cannot go on: a loss is not finite; the message names the batch."""


class BrokerUnavailableError(PrectrError):
    """Kafka does not answer; a process that is already at work waits for it."""
