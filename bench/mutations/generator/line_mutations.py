"""Mutations of an event's bytes: the productions of the grammar that need not leave JSON, or text, behind."""

import gzip
import random
from collections.abc import Callable
from typing import Final

LineMutation = Callable[[random.Random, bytes], bytes]

_MIB: Final = 1 << 20
_INVALID_UTF8: Final = (
    *(b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82", b"\xf0\x9f\x98"),
)
_ESCAPES: Final = (
    rb"\ud800",
    rb"\udc00\ud800",
    rb"\u0000",
    rb"\uFFFF",
    rb"\ud83d\ude00",
    rb"\x41",
    rb"\u12",
    rb"\/",
    b"\\",
)
_BLANKS: Final = (b"", b" ", b"\t\t", b"\r", b"   \r", b"\x0b", b"\xc2\xa0", b"\xe2\x80\x8b")
_DOCUMENTS: Final = (
    *(
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"3",
        b"-",
        b'"click"',
        b"[[]]",
        b"[{}]",
        b'{"type":"click"}',
        b"NaN",
        b"-0",
        b"1e999",
    ),
    *(b'{"type":"impression","items":[]}', b"<event/>", b"type,ts", b"PAR1", b"\x1f\x8b", b"{'type': 'click'}"),
)


def _insert(line: bytes, at: int, inserted: bytes) -> bytes:
    return line[:at] + inserted + line[at:]


def _truncated(rng: random.Random, line: bytes) -> bytes:
    return line[: rng.randrange(len(line) + 1)]


def _beginning_lost(rng: random.Random, line: bytes) -> bytes:
    return line[rng.randrange(len(line) + 1) :]


def _byte_changed(rng: random.Random, line: bytes) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]


def _invalid_utf8(rng: random.Random, line: bytes) -> bytes:
    return _insert(line, rng.randrange(len(line) + 1), rng.choice(_INVALID_UTF8))


def _null_byte(rng: random.Random, line: bytes) -> bytes:
    return _insert(line, rng.randrange(len(line) + 1), b"\0" * rng.randint(1, 8))


def _byte_order_mark(rng: random.Random, line: bytes) -> bytes:
    return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf\xef\xbb\xbf")) + line


def _encoding(rng: random.Random, line: bytes) -> bytes:
    name = rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7"))
    return line.decode(errors="replace").encode(name, errors="replace")


def _escape(rng: random.Random, line: bytes) -> bytes:
    quotes = [at + 1 for at, byte in enumerate(line) if byte == 0x22]
    return _insert(line, rng.choice(quotes or [0]), rng.choice(_ESCAPES))


def _duplicate_key(rng: random.Random, line: bytes) -> bytes:
    added = rng.choice(
        (b'"ts":1', b'"user_id":"u1"', b'"type":"click"', b'"items":[]', b'"request_id":null', b'"query":"q"')
    )
    return b"{" + added + b"," + line[1:] if rng.random() < 0.5 else line[:-1] + b"," + added + b"}"


def _punctuation(rng: random.Random, line: bytes) -> bytes:
    return rng.choice(
        (
            line[:-1] + b",}",
            line + b"}",
            line + b",",
            b"[" + line + b"]",
            line.replace(b'"', b"'"),
            line.replace(b":", b"=", 1),
            line[:-1] + b',"x":NaN}',
            line[:-1] + b',"x":-Infinity}',
            line[:-1] + b',"x":01}',
            line[:-1] + b',"x":+1}',
            line[:-1] + b',"x":.5}',
            line[:-1] + b',"x":1e}',
            b"// event\r" + line,
            line + b"#",
        )
    )


def _two_events(rng: random.Random, line: bytes) -> bytes:
    return rng.choice((line + line, line + b" " + line, line + b"\x1e" + line, line + b"\0" + line))


def _blank(rng: random.Random, line: bytes) -> bytes:
    return rng.choice(_BLANKS)


def _other_document(rng: random.Random, line: bytes) -> bytes:
    return rng.choice(_DOCUMENTS)


def _white_space(rng: random.Random, line: bytes) -> bytes:
    return b"  " * rng.randrange(3) + line.replace(b",", b" ,\t", 3) + rng.choice((b"\r", b" ", b"\t\r", b"\x0c"))


def _line_feed(rng: random.Random, line: bytes) -> bytes:
    """In a file, several lines; in a record, one value."""
    return line.replace(b",", b",\n", rng.randint(1, 5))


def _nesting(rng: random.Random, line: bytes) -> bytes:
    depth = rng.choice((10, 400, 498, 499, 500, 501, 900, 1_001, 5_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    if rng.random() < 0.2:
        return opening * depth
    inner = b"" if opening == b"[" else b"1"
    return line[:-1] + b',"x":' + opening * depth + inner + closing * depth + b"}"


def _binary(rng: random.Random, line: bytes) -> bytes:
    return rng.choice(
        (rng.randbytes(rng.randint(1, 200)), gzip.compress(line, mtime=0), b"\0\0\0\0\x07" + line, b"\0" + line)
    )


def _one_mebibyte(rng: random.Random, line: bytes) -> bytes:
    """A line of exactly 1 MiB, or a few bytes less or more."""
    return _padded(line, _MIB + rng.choice((-2, -1, 0, 1, 2)), rng)


def _over_one_mebibyte(rng: random.Random, line: bytes) -> bytes:
    return _padded(line, _MIB + rng.randrange(_MIB), rng)


def _deep_nesting(rng: random.Random, line: bytes) -> bytes:
    return line[:-1] + b',"x":' + b"[" * rng.choice((100_000, _MIB - len(line) - 5))


def _padded(line: bytes, size: int, rng: random.Random) -> bytes:
    """The line with an unknown text field that makes it `size` bytes long; bytes that compress to about a tenth."""
    room = size - len(line) - len(b',"x":""')
    chunk = rng.randbytes(2048).hex().encode() + b"x" * 16_384
    return line[:-1] + b',"x":"' + (chunk * (room // len(chunk) + 1))[: max(0, room)] + b'"}'


LINE_MUTATIONS: Final[dict[str, LineMutation]] = {
    "truncated": _truncated,
    "beginning lost": _beginning_lost,
    "byte changed": _byte_changed,
    "invalid UTF-8": _invalid_utf8,
    "null bytes": _null_byte,
    "byte order mark": _byte_order_mark,
    "other encoding": _encoding,
    "escape": _escape,
    "duplicate key": _duplicate_key,
    "punctuation": _punctuation,
    "two events": _two_events,
    "blank": _blank,
    "other document": _other_document,
    "white space": _white_space,
    "line feeds": _line_feed,
    "nesting": _nesting,
    "binary": _binary,
}
LARGE_LINE_MUTATIONS: Final[dict[str, LineMutation]] = {
    "1 MiB": _one_mebibyte,
    "over 1 MiB": _over_one_mebibyte,
    "deep nesting": _deep_nesting,
}
