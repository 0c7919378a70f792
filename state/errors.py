"""The tree of errors: each message names the thing and the value seen; remedies say what to do next."""

from collections.abc import Mapping
from enum import Enum


class Remedy(Enum):
    """What the user can do about an error. The value is the wording for a library; `ops.cli.remedies` has the flags."""

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
    CHECK_CONNECTION = "check that the broker is running, its address and the security settings"
    ADVERTISED_LISTENERS = "set advertised.listeners of the brokers to addresses that this machine can reach"
    CHECK_CREDENTIALS = "check the SASL settings of the client"
    LONGER_CONNECT_TIMEOUT = "allow more time to connect"
    CREATE_TOPICS = "create the topics"
    DELETE_TOPIC = "delete the topic and its group's offsets"
    RESTORE_OFFSETS = "restore the group's offsets from the stored state"
    WRITER_GROUP_PREFIX = "use the group prefix with which the state was written"
    NEWER_STATE_DIR = "use a state folder that is further ahead"
    ORIGINAL_SETTINGS = "use the settings with which it was made"
    SKIP_LOADED = "load the rest with that many lines skipped (lines in flight may be loaded twice, as duplicates)"
    LIST_DEAD_LETTERS = "list the dead letters"
    ADDITIONAL_STATE_DIR = "also name the state folder of the process that runs the task"
    INSTALL_CODEC = (
        "install its library (pip install python-snappy, lz4 or zstandard), or change compression.type of the topic or "
        "the producer"
    )
    RESTORE_PARTITION = "restore the partition from a replica"
    CONVERT = "convert it to events"
    START_OVER_LIVE = "start over with another topic prefix, group prefix and state folder, and load the log again"


class PrectrError(Exception):
    """Something went wrong that the user can act on; the command ends with exit code 1.

    Args:
        message: names the thing, where it is and the value seen, without any flag of a command. A message that ends
            with a comma already names one remedy.
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
        separator = " or " if self.message.endswith(",") else ": "
        return self.message + separator + ", or ".join(words[remedy] for remedy in self.remedies)


class UsageError(PrectrError):
    """The command, a flag or a setting is wrong; the command ends with exit code 2."""


class ConfigError(UsageError):
    """A setting is unknown, has the wrong type or is out of its range."""


class InputError(PrectrError):
    """A file of events cannot be read; the message names the file and the position in it."""


class StateError(PrectrError):
    """A state store cannot be opened or belongs to another stage, partition or configuration."""


class SystemLimitError(StateError):
    """A limit of the system was hit, such as that of open files; what was to be read or written is not damaged."""


class CheckpointError(PrectrError):
    """A checkpoint is corrupt, of another format version, or of another model or configuration."""


class TrainingError(PrectrError):
    """Training cannot continue: a loss, gradient or weight is not finite; the message names it, and the batch."""


class BrokerUnavailableError(PrectrError):
    """Kafka does not answer; a process that is already running waits for it."""
