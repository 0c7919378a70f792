"""Formats log records: as lines of text and as JSON lines."""

import logging
from datetime import UTC, datetime
from typing import Final

import msgspec

from prectr.ops.cli.terminal_escape import printable_lines

SEVERITIES: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("console", "json")


class LogLine(msgspec.Struct, omit_defaults=True):
    """A line of a JSON log. time: ISO 8601, UTC. stage, partition: of the task concerned. error: a traceback."""

    time: str
    severity: str
    logger: str
    message: str
    stage: str | None = None
    partition: int | None = None
    error: str | None = None


class LineFormatter(logging.Formatter):
    """Time, severity and message; control characters in it, as of a file's name, are escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format the record."""
        return printable_lines(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object per record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode the record as a `LogLine`."""
        return encode_line(
            LogLine(
                datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                record.levelname,
                record.name,
                record.getMessage(),
                getattr(record, "stage", None),
                getattr(record, "partition", None),
                self.formatException(record.exc_info) if record.exc_info else None,
            )
        )


def encode_line(line: LogLine) -> str:
    """Encode without a line break; invalid Unicode, as in file names, is escaped."""
    line.message = line.message.encode(errors="backslashreplace").decode()
    return msgspec.json.encode(line).decode()


def decode_line(text: str) -> LogLine | None:
    """Decode a line of `encode_line`; None for any other text."""
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        return None


_decode: Final = msgspec.json.Decoder(LogLine).decode
