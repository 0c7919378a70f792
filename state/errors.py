"""The tree of errors: each message names the thing and the value seen; remedies say what to do next."""

from collections.abc import Mapping
from enum import Enum


class Remedy(Enum):
    """What the user can do about an error. The value words it for a library; `ops.cli.remedies` words it as flags."""

    RESTART = "start the run over"
    OTHER_RUN_DIR = "use another run folder"
    EMPTY_RUN_DIR = "start over in an empty run folder"
    OLDER_CHECKPOINT = "use an older checkpoint"
    RELEASE_THAT_WROTE = "use the release that wrote it"
    SAME_SETTINGS = "restore these settings"
    SAME_ENCODER = "use the encoder that it was trained with"
    MORE_QUERIES = "use pairs of more queries"
    NO_HOLDOUT = "hold out no queries"
    FLOAT32 = "compute in float32"
    OTHER_STATE_DIR = "use another state folder"
    OTHER_GROUP_PREFIX = "use another group prefix"
    OTHER_TOPIC_PREFIX = "use another topic prefix"
    OTHER_SNAPSHOTS = "use another snapshot location"
    START_OVER_LIVE = "start over with another topic prefix, group prefix and state folder, and load the log again"


class PrectrError(Exception):
    """Something went wrong that the user can act on; the command ends with exit code 1.

    Args:
        message: names the thing, its place and the value seen, without any flag of a command.
        remedies: alternatives, the best first; `str(error)` appends them to the message.
    """

    def __init__(self, message: str, *remedies: Remedy) -> None:
        super().__init__(message, *remedies)
        self.message = message
        self.remedies = remedies

    def __str__(self) -> str:
        return self.worded({remedy: remedy.value for remedy in self.remedies})

    def worded(self, words: Mapping[Remedy, str]) -> str:
        """Return the message followed by its remedies, each in the words given for it."""
        if not self.remedies:
            return self.message
        return f"{self.message}: {', or '.join(words[remedy] for remedy in self.remedies)}"


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
