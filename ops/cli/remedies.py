"""The remedies of errors, worded as flags of the command line."""

from typing import Final

from prectr.state.errors import PrectrError, Remedy

_FLAGS: Final = {
    Remedy.RESTART: "start over with --restart",
    Remedy.OTHER_RUN_DIR: "name another --run-dir",
    Remedy.EMPTY_RUN_DIR: "start over in an empty --run-dir",
    Remedy.OLDER_CHECKPOINT: Remedy.OLDER_CHECKPOINT.value,
    Remedy.RELEASE_THAT_WROTE: Remedy.RELEASE_THAT_WROTE.value,
    Remedy.SAME_SETTINGS: Remedy.SAME_SETTINGS.value,
    Remedy.SAME_ENCODER: "name that one with --encoder",
    Remedy.MORE_QUERIES: Remedy.MORE_QUERIES.value,
    Remedy.NO_HOLDOUT: "use --held-out 0",
    Remedy.FLOAT32: "use --dtype float32",
    Remedy.OTHER_STATE_DIR: "use another --state-dir",
    Remedy.OTHER_GROUP_PREFIX: "use another --group-prefix",
    Remedy.OTHER_TOPIC_PREFIX: "use another --topic-prefix",
    Remedy.OTHER_SNAPSHOTS: "use another --snapshots",
    Remedy.CHECK_CONNECTION: (
        "check that the broker is running, --bootstrap and the security settings of --client-config"
    ),
    Remedy.ADVERTISED_LISTENERS: Remedy.ADVERTISED_LISTENERS.value,
    Remedy.CHECK_CREDENTIALS: "check the sasl_ settings of --client-config",
    Remedy.LONGER_CONNECT_TIMEOUT: "allow more time with --connect-timeout",
    Remedy.CREATE_TOPICS: "create the topics with `prectr topics create`",
    Remedy.DELETE_TOPIC: "delete the topic and its group's offsets",
    Remedy.RESTORE_OFFSETS: (
        "if its offsets were reset or have expired, look at `prectr state restore-offsets`, which keeps the state"
    ),
    Remedy.WRITER_GROUP_PREFIX: "use the --group-prefix with which the state was written",
    Remedy.NEWER_STATE_DIR: "use a --state-dir that is further ahead",
    Remedy.ORIGINAL_SETTINGS: "use the settings with which it was made",
    Remedy.SKIP_LOADED: (
        "rerun the command with that number as --skip-lines (lines in flight may be loaded twice, as duplicates)"
    ),
    Remedy.LIST_DEAD_LETTERS: "list the dead letters with `prectr dlq list`",
    Remedy.ADDITIONAL_STATE_DIR: "add the state folder of the process that runs the task with another --state-dir",
    Remedy.INSTALL_CODEC: Remedy.INSTALL_CODEC.value,
    Remedy.RESTORE_PARTITION: Remedy.RESTORE_PARTITION.value,
    Remedy.CONVERT: "convert it to events with `prectr convert`",
    Remedy.START_OVER_LIVE: (
        "start over with other --topic-prefix, --group-prefix, --state-dir and --run-dir, as in docs/runbook.md, "
        "section Starting over"
    ),
}


def with_flags(error: PrectrError) -> str:
    """Return the message of an error, its remedies worded as flags."""
    return error.worded(_FLAGS)
