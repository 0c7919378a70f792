"""Decodes bytes to events, a micro-batch at a time; invalid bytes become an `InvalidEvent` in the same position."""

import threading
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from prectr.stream.events.contract import MAX_EVENT_BYTES, MAX_ID_BYTES, Event, InvalidEvent, Item, ResultPage
from prectr.stream.events.event_time import is_implausible
from prectr.stream.events.explanation import explain_event, explain_type
from prectr.stream.events.nesting import MAX_DEPTH, is_too_deep
from prectr.stream.events.session_events import decode_session_event
from prectr.stream.events.wire import decode_id, decode_wire_event, id_text

Reason = Literal[
    "blank",
    "too_large",
    "too_deep",
    "not_utf8",
    "not_json",
    "unknown_type",
    "missing_field",
    "implausible_time",
    "invalid_field",
]
Kind = Literal["impression", "click", "unreadable"]

_BACKSLASH: Final = 0x5C

_event_decoder: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_decode_event = _event_decoder.decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_any: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_DETAIL_CHARACTERS: Final = 300
_KINDS: Final[dict[str, Kind]] = {"impression": "impression", "click": "click"}


_TOO_DEEP: Final = InvalidEvent("too_deep", f"more than {MAX_DEPTH} arrays and objects nested", "unreadable", None)


class _EventHeader(msgspec.Struct):
    """The fields that identify the type and the user of an invalid event."""

    type: msgspec.Raw = msgspec.Raw()
    user_id: msgspec.Raw = msgspec.Raw()
    session_id: msgspec.Raw = msgspec.Raw()


_decode_header = msgspec.json.Decoder(_EventHeader).decode


def decode_lines(lines: Sequence[bytes]) -> list[Event | InvalidEvent]:
    """Decode each line (one JSON event, without its line end) to an event or an `InvalidEvent`.

    The order is kept, and no bytes raise an error. Positions that a page leaves out are filled in from the index in
    the list. A line over 1 MiB is `too_large` by its length alone, so a reader may pass only the first 1 MiB + 1 bytes
    of a longer one.
    """
    decoded: list[Event | InvalidEvent] = []
    for line in lines:
        try:
            decoded.append(_decode_line(line))
        except RecursionError:
            decoded.append(_decode_on_empty_stack(line))
    return decoded


def _decode_line(line: bytes) -> Event | InvalidEvent:
    if len(line) > MAX_EVENT_BYTES:
        return InvalidEvent("too_large", f"more than {MAX_EVENT_BYTES} bytes", "unreadable", None)
    if is_too_deep(line):
        return _TOO_DEEP
    event: Event | InvalidEvent
    try:
        event = _decode_event(line)
        # Only these lines can hold a character of more than one byte, or bytes that are not UTF-8.
        if not line.isascii() or _BACKSLASH in line:
            line.decode()
            _check_ids(event)
    except msgspec.ValidationError:
        event = _decode_written(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _invalid_event(line, error)
    if type(event) is ResultPage:
        for item in event.items:
            if item.position is None:
                _fill_positions(event.items)
                break
    return event


def _fill_positions(items: list[Item]) -> None:
    for position, item in enumerate(items, 1):
        if item.position is None:
            item.position = position


def _decode_written(line: bytes) -> Event | InvalidEvent:
    """Decode a line in which something is not in the one form of the contract."""
    try:
        try:
            event = decode_session_event(line)
        except msgspec.ValidationError:
            event = decode_wire_event(line)
        line.decode()
        _check_ids(event)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _invalid_event(line, error)
    return event


def _decode_on_empty_stack(line: bytes) -> Event | InvalidEvent:
    """Decode a line for which the stack of a caller had no room, in a thread of its own."""
    decoded: list[Event | InvalidEvent] = []

    def decode() -> None:
        try:
            decoded.append(_decode_line(line))
        except RecursionError:
            # An interpreter may limit the stack to less than MAX_DEPTH needs.
            decoded.append(_TOO_DEEP)

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join()
    return decoded[0]


def _check_ids(event: Event) -> None:
    ids = [event.request_id, event.user_id]
    if isinstance(event, ResultPage):
        ids += [item.item_id for item in event.items]
    else:
        ids.append(event.item_id)
    for text in ids:
        if len(text) * 4 > MAX_ID_BYTES and (size := len(text.encode())) > MAX_ID_BYTES:
            raise msgspec.ValidationError(f"an id of {size} bytes, of at most {MAX_ID_BYTES}: {text[:20]!r}…")


def _invalid_event(line: bytes, error: Exception) -> InvalidEvent:
    """Describe what is wrong with a line, with the type and the user that its bytes state."""
    if not line.strip():
        return InvalidEvent("blank", "an empty line", "unreadable", None)
    try:
        line.decode()
    except UnicodeDecodeError as undecodable:
        detail = f"byte {undecodable.start} is not UTF-8: {undecodable.reason}"
        return InvalidEvent("not_utf8", detail, "unreadable", None)
    try:
        header = _decode_header(line)
    except msgspec.ValidationError as not_an_object:
        return InvalidEvent("unknown_type", str(not_an_object), "unreadable", None)
    except msgspec.MsgspecError as malformed:
        return InvalidEvent("not_json", str(malformed)[:_DETAIL_CHARACTERS], "unreadable", None)
    kind = _KINDS.get(_text(header.type) or "", "unreadable")
    user_id = _id(header.user_id) or _id(header.session_id)
    if kind == "unreadable":
        return InvalidEvent("unknown_type", explain_type(bytes(header.type).decode()), kind, user_id)
    reason, detail = _reason(line, kind, str(error))
    return InvalidEvent(reason, detail[:_DETAIL_CHARACTERS], kind, user_id)


def _reason(line: bytes, kind: Kind, message: str) -> tuple[Reason, str]:
    """Return the reason, and the detail, why an object of a known type is no event."""
    try:
        event = _decode_any.decode(line)
    except msgspec.MsgspecError:
        return "invalid_field", message
    # The message may be about a value of a name that is given again, whereas `event` has the last one.
    if (of_last := _error_of(event, message)) is None:
        return "invalid_field", f"a name is given twice in an object, with a value that is not right: {message}"
    message = of_last
    detail = explain_event(event, kind, message)
    if message.startswith("Object missing required field"):
        return "missing_field", detail
    return "implausible_time" if is_implausible(event.get("ts")) else "invalid_field", detail


def _error_of(event: object, message: str) -> str | None:
    """Return what is wrong with a parsed event, None if nothing is; `message` if it cannot be written as JSON again."""
    try:
        _check_ids(decode_wire_event(msgspec.json.encode(event)))
    except msgspec.ValidationError as error:
        return str(error)
    except (ValueError, OverflowError):
        return message
    return None


def _text(raw: msgspec.Raw) -> str | None:
    try:
        return _decode_text(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _id(raw: msgspec.Raw) -> str | None:
    try:
        return _text(raw) or id_text(decode_id(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
