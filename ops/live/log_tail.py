"""Reads the logs of the processes of a live run, in either format."""

import os
import re
from pathlib import Path
from typing import Final

from prectr.ops.cli.log_format import LogLine, decode_line

_ERROR_LOGGER: Final = "prectr"
"""The logger of the final error of a command,"""
_ERROR_PREFIX: Final = "prectr: "
"""and the prefix of that line in the console format."""
_WARNING_SEVERITIES: Final = ("WARNING", "ERROR", "CRITICAL")
_WARNING_LINE: Final = re.compile(rf"^\S+ \S+ (?:{'|'.join(_WARNING_SEVERITIES)}) (.*)$")


def final_error(line: str) -> str:
    """Return the message of the error with which a command ends; empty for any other line."""
    entry = _decoded(line)
    if entry is not None:
        return entry.message if (entry.logger, entry.severity) == (_ERROR_LOGGER, "ERROR") else ""
    return line.removeprefix(_ERROR_PREFIX) if line.startswith(_ERROR_PREFIX) else ""


def _decoded(line: str) -> LogLine | None:
    return decode_line(line) if line.startswith("{") else None


class LogTail:
    """Follows the log file of a child."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._partial = b""
        self._error = ""

    def read_warnings(self) -> list[str]:
        """Read new warnings and errors; remember the last final error."""
        with self._log.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                # Truncated in place by a rotation of logs (copytruncate).
                self._offset, self._partial = 0, b""
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        found = []
        for line in lines:
            text = line.decode(errors="replace")
            if error := final_error(text):
                self._error = error
            elif entry := _decoded(text):
                if entry.severity in _WARNING_SEVERITIES:
                    found.append(entry.message)
            elif match := _WARNING_LINE.match(text):
                found.append(match[1])
        return found

    def pop_error(self) -> str:
        """Return and clear the last final error."""
        error, self._error = self._error, ""
        return error
