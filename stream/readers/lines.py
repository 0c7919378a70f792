"""Splits blocks of bytes into lines."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prectr.stream.events.contract import MAX_EVENT_BYTES

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def split_lines(blocks: Iterable[bytes], on_unfinished: Callable[[], None] | None = None) -> Iterator[list[bytes]]:
    """Yield the lines of a file without their line feeds, several at a time; blocks have at most 1 MiB.

    The last line need not end in a line feed; if it does, no empty line follows it. With `on_unfinished`, which is then
    called, a last line without a line feed is left out: the rest of it may not have been written yet. Of a line of more
    than 1 MiB only the first 1 MiB + 1 bytes are kept and yielded: enough to recognise it as too large. A UTF-8 byte
    order mark at the start is removed. If `blocks` raises an error, an incomplete line is lost.
    """
    tail = b""
    first = True
    for block in blocks:
        data = block
        if first:
            data = block.removeprefix(_BYTE_ORDER_MARK)
            first = False
        lines = data.split(b"\n")
        # Only the first line can be too long: the others lie within one block.
        lines[0] = tail + lines[0][: MAX_EVENT_BYTES + 1 - len(tail)]
        tail = lines.pop()
        yield lines
    if tail and on_unfinished is not None:
        on_unfinished()
    elif tail:
        yield [tail]
