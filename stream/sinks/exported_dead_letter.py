"""A dead letter in a file that people read and correct: the event as JSON, where its bytes are JSON."""

import base64
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import UsageError

_ONE_LINE: Final = -1
_NULL: Final = msgspec.Raw(b"null")


class ExportedDeadLetter(msgspec.Struct, frozen=True):
    """A line of the file.

    Attributes:
        dead_letter: which one: PARTITION:OFFSET on Kafka, its number in a replay.
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


def exported_line(dead_letter: str, reason: str, detail: str, value: bytes) -> bytes:
    """Return a dead letter as a line of the file."""
    return msgspec.json.encode(_exported((dead_letter, reason, detail), value)) + b"\n"


def check_new_file(out: Path) -> None:
    """Raise UsageError if the file to write exists; it may contain corrections."""
    if out.exists():
        raise UsageError(f"{out} exists, and may contain corrections: use another file name, or remove it")


def _exported(common: tuple[str, str, str], value: bytes) -> ExportedDeadLetter:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ExportedDeadLetter(*common, base64=base64.b64encode(value).decode())
    try:
        return ExportedDeadLetter(*common, event=msgspec.Raw(msgspec.json.format(value, indent=_ONE_LINE)))
    except (msgspec.MsgspecError, RecursionError):
        return ExportedDeadLetter(*common, text=text)
