"""Writes dead letters to a file, to be corrected and retried from there."""

import base64
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import UsageError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.reader import DeadLetterReader, Progress, read_retried
from prectr.stream.kafka.dlq.records import DeadLetterRecord, decode_dead_letter, is_retry_marker

_ONE_LINE: Final = -1
_NULL: Final = msgspec.Raw(b"null")


class ExportedDeadLetter(msgspec.Struct, frozen=True):
    """A line of the file.

    Attributes:
        dead_letter: PARTITION:OFFSET.
        reason: one word, such as missing_field.
        detail: description of the error.
        event: the event if it is JSON; otherwise null, to be filled in.
        text: the value if it is text but not JSON.
        base64: the value if it is not text.
    """

    dead_letter: str
    reason: str
    detail: str
    event: msgspec.Raw = _NULL
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


def export_dead_letters(
    connection: Connection, topics: Topics, out: Path, progress: Progress, *, reason: str | None = None
) -> int:
    """Write the dead letters that were not retried, one per line; with `reason`, only those that have it.

    Returns:
        Their number.

    Raises:
        UsageError: the file exists; it may contain corrections.
        PrectrError: the broker does not answer, the topic does not exist, or a retry marker cannot be decoded.
    """
    if out.exists():
        raise UsageError(f"{out} exists, and may contain corrections: use another file name, or remove it")
    # A file with the final name is complete.
    part = out.with_name(f"{out.name}.part")
    count = 0
    reader = DeadLetterReader(connection, topics)
    try:
        retried = read_retried(reader, progress=lambda done, total: progress(done, 2 * total))
        with part.open("wb") as file:
            for records in reader.read(progress=lambda done, total: progress(total + done, 2 * total)):
                for dead_letter in (decode_dead_letter(record) for record in records if not is_retry_marker(record)):
                    if dead_letter.ref not in retried and reason in (None, dead_letter.reason):
                        file.write(msgspec.json.encode(_exported(dead_letter)) + b"\n")
                        count += 1
        part.replace(out)
    finally:
        reader.close()
        part.unlink(missing_ok=True)
    return count


def _exported(dead_letter: DeadLetterRecord) -> ExportedDeadLetter:
    common = str(dead_letter.ref), dead_letter.reason, dead_letter.detail
    try:
        text = dead_letter.value.decode()
    except UnicodeDecodeError:
        return ExportedDeadLetter(*common, base64=base64.b64encode(dead_letter.value).decode())
    try:
        return ExportedDeadLetter(*common, event=msgspec.Raw(msgspec.json.format(dead_letter.value, indent=_ONE_LINE)))
    except (msgspec.MsgspecError, RecursionError):
        return ExportedDeadLetter(*common, text=text)
