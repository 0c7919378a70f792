"""The standard streams of the process: open, and able to take any text."""

import os
import sys
from typing import Final, TextIO

_STREAMS: Final = (("stdin", os.O_RDONLY, 0), ("stdout", os.O_WRONLY, 1), ("stderr", os.O_WRONLY, 2))


def open_standard_streams() -> None:
    """Have all three standard streams open, and characters that their encoding lacks escaped instead of an error.

    A stream that the caller has closed is replaced by the null device: without it, the next file that is opened would
    take its number, and be read or written as the standard stream.
    """
    for name, flags, number in _STREAMS:
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            _reserve(number, flags)
            stream = open(number, "r" if flags == os.O_RDONLY else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        if flags == os.O_WRONLY and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _reserve(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, flags)
        if null != number:
            os.dup2(null, number)
            os.close(null)
