"""The system that a task's state belongs to, and the settings in which two configurations differ."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

IDENTITY_KEY: Final = b"i"
"""Key of the encoded `StoreIdentity` in a store of the live system."""
_MISSING: Final = "not set"


class StoreIdentity(msgspec.Struct, frozen=True):
    """The system and task that a state folder belongs to; a task rejects a folder in which any field differs.

    Attributes:
        topic_id: id of the input topic; a topic that is recreated under the same name has another one.
        config: the settings that decide the task's output, by name.
    """

    cluster: str
    topic: str
    topic_id: str
    stage: str
    partition: int
    config: dict[str, Any]

    def diff(self, stored: "StoreIdentity") -> str:
        """Return the fields that differ from those of a stored identity, as `config_diff` words them."""
        return config_diff(msgspec.structs.asdict(self), msgspec.structs.asdict(stored))


encode_identity: Final = msgspec.msgpack.Encoder().encode
# Tasks are opened in parallel, and msgspec 0.22 crashes if two threads are the first to decode a type.
decode_identity: Final = msgspec.msgpack.Decoder(StoreIdentity).decode


def config_diff(current: Mapping[str, Any], other: Mapping[str, Any], verb: str = "was") -> str:
    """Return the settings that differ, as text: "seed is 1, was 2; stage.window is 60, was not set".

    Nested mappings are compared setting by setting. The result is empty if nothing differs.

    Args:
        verb: introduces the value in `other`.
    """
    return "; ".join(_differences(current, other, verb, ""))


def _differences(current: Mapping[str, Any], other: Mapping[str, Any], verb: str, prefix: str) -> Iterator[str]:
    for name in sorted(current.keys() | other.keys()):
        value, other_value = current.get(name, _MISSING), other.get(name, _MISSING)
        if isinstance(value, Mapping) and isinstance(other_value, Mapping):
            yield from _differences(value, other_value, verb, f"{prefix}{name}.")
        elif value != other_value:
            yield f"{prefix}{name} is {_formatted(value)}, {verb} {_formatted(other_value)}"


def _formatted(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(value) or "nothing" if all(isinstance(part, str) for part in value) else str(list(value))
    return str(value) or "nothing"
