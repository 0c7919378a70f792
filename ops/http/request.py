"""Parses the head of an HTTP/1 request; whatever is not plainly well-formed is refused."""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

MAX_LINE: Final = 8_192
"""Maximum bytes of the request line,"""
MAX_HEAD: Final = 16_384
"""and of request line and headers together."""
_REQUEST_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_ABSOLUTE: Final = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)


class RefusedRequest(Exception):
    """A request that is not processed. Both arguments are our own words, never the client's.

    Args:
        status: of the response.
        reason: the text of the response.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a request. It has no control characters; a body is not read.

    path: as sent, without a query. host: of the target or the Host header, port included; None if HTTP/1.0 names none.
    headers: by name in lower case; values of equal names are joined by `, `.
    """

    method: str
    path: str
    host: str | None
    headers: Mapping[str, str]


def parse_head(head: bytes) -> Request:
    """Parse a request line and its headers.

    Args:
        head: without the empty line that ends it.

    Raises:
        RefusedRequest: it is malformed, too long, or not HTTP/1.
    """
    line, *header_lines = (each.removesuffix("\r") for each in head.decode("latin-1").split("\n"))
    check_size(len(line), len(head))
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, "malformed request line")
    method, target, major, minor = found.groups()
    if major != "1":
        raise RefusedRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1")
    headers = _parse_headers(header_lines)
    host = headers.get("host")
    if host is None and minor != "0":
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, "the Host header is missing")
    if absolute := _ABSOLUTE.fullmatch(target):
        # The host of the target takes precedence (RFC 9112, section 3.2.2).
        host, target = absolute[1], absolute[2]
    return Request(method=method, path=target.partition("?")[0] or "/", host=host, headers=headers)


def check_size(line: int, head: int) -> None:
    """Raise RefusedRequest if a request line or a head of this many bytes is too long."""
    if line > MAX_LINE:
        raise RefusedRequest(HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line is longer than {MAX_LINE:,} bytes")
    if head > MAX_HEAD:
        raise RefusedRequest(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers are longer than {MAX_HEAD:,} bytes"
        )


def _parse_headers(lines: Iterable[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, "malformed header")
        name, value = found[1].lower(), found[2].rstrip(" \t")
        # Two Host headers make a value that is no host.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
