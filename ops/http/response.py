"""Responses, and the headers that all of them have."""

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec

_COMMON: Final = {
    # A connection serves one request, so a client that waits holds nothing.
    "Connection": "close",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # The page has inline styles and an empty icon, and loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response. headers: further ones, by name."""

    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    body: bytes
    headers: dict[str, str] = {}


def text_response(status: HTTPStatus, text: str, **headers: str) -> Response:
    """A response of plain text."""
    return Response(status=status, body=text.encode(), headers=headers)


def readiness_response(unready_reason: str) -> Response:
    """The response to a readiness probe: 200, or 503 with the reason. unready_reason: empty if ready."""
    if unready_reason:
        return text_response(HTTPStatus.SERVICE_UNAVAILABLE, f"{unready_reason}\n")
    return text_response(HTTPStatus.OK, "ready\n")


def encode_response(response: Response, *, head_only: bool) -> bytes:
    """The bytes of a response. head_only: without the body, whose length is stated all the same, as HEAD requires."""
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        **_COMMON,
        **response.headers,
    }
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + response.body
