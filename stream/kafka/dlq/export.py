"""Writes dead letters to a file that a person corrects and `prectr dlq retry --from` feeds back."""

import base64
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import UsageError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.reader import LetterReader, Progress, read_retried
from prectr.stream.kafka.dlq.records import Letter, is_note, read_letter

_ONE_LINE: Final = -1
_NULL: Final = msgspec.Raw(b"null")


class LetterToCorrect(msgspec.Struct, frozen=True):
    """A line of the file.

    letter: PARTITION:OFFSET. reason, detail: what was wrong. event: the event, where it is JSON; else null, to be
    filled in, and the letter's text stands in `text`, or its bytes in `base64` where they are not text.
    """

    letter: str
    reason: str
    detail: str
    event: msgspec.Raw = _NULL
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


def export_letters(
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
    reader = LetterReader(connection, topics)
    try:
        retried = read_retried(reader, progress=lambda done, total: progress(done, 2 * total))
        with part.open("wb") as file:
            for records in reader.read(progress=lambda done, total: progress(total + done, 2 * total)):
                for letter in (read_letter(record) for record in records if not is_note(record)):
                    if letter.address not in retried and reason in (None, letter.reason):
                        file.write(msgspec.json.encode(_to_correct(letter)) + b"\n")
                        count += 1
        part.replace(out)
    finally:
        reader.close()
        part.unlink(missing_ok=True)
    return count


def _to_correct(letter: Letter) -> LetterToCorrect:
    about = str(letter.address), letter.reason, letter.detail
    try:
        text = letter.value.decode()
    except UnicodeDecodeError:
        return LetterToCorrect(*about, base64=base64.b64encode(letter.value).decode())
    try:
        return LetterToCorrect(*about, event=msgspec.Raw(msgspec.json.format(letter.value, indent=_ONE_LINE)))
    except (msgspec.MsgspecError, RecursionError):
        return LetterToCorrect(*about, text=text)
