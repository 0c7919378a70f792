"""Writes dead letters to a file that a person corrects and `prectr dlq retry --file` feeds back."""

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

    letter: PARTITION:OFFSET. reason, detail: what was wrong. event: the event, where it is JSON; else null, to be
    filled in, and the letter's text stands in `text`, or its bytes in `base64` where they are not text.
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
    """Write the letters that were not retried, one a line; returns how many. reason: only those of it.

    Raises:
        UsageError: the file is there; it may hold corrections.
        PrectrError: no broker or no topic, or it holds notes that cannot be read.
    """
    if out.exists():
        raise UsageError(f"{out} is there, and may hold corrections: name another file, or remove it")
    # A file of the right name is a whole one.
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
