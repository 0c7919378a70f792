"""Records of the topic `model-quality`: a trainer's quality by window, for the monitor."""

import hashlib
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.sketch import QualitySketch
from prectr.model.quality.windows import QualityWindow
from prectr.state.errors import CheckpointError, PrectrError

RECORD_VERSION: Final = 1
_MAX_SEQUENCE: Final = 10_000_000_000_000 // 60_000
"""Sequences of windows after the year 2286 are rejected."""
_MAX_NAME_LENGTH: Final = 128


class QualityRecord(msgspec.Struct, frozen=True, array_like=True):
    """Quality of one window, as counted so far by one rank of a run.

    A record replaces every earlier one of its (run, rank, sequence). run: identity of model, topic and settings; equal
    runs count the same. rank: of the process in data-parallel training. checkpoint: when the checkpoint that contains
    the window was written, ms since the epoch.
    """

    version: int
    run: str
    rank: int
    model: str
    checkpoint: int
    window: QualityWindow

    @property
    def key(self) -> bytes:
        """The record's key: (run, rank, sequence)."""
        return record_key(self.run, self.rank, self.window.sequence)

    def sketches(self) -> dict[str, QualitySketch]:
        """The sketches by segment."""
        return {name: QualitySketch.decode(state) for name, state in zip(SEGMENTS, self.window.segments, strict=True)}


def record_key(run: str, rank: int, sequence: int) -> bytes:
    """The key of a record, as bytes."""
    return f"{run}/{rank}/{sequence}".encode()


class InvalidQualityRecord(PrectrError):
    """A record that is skipped, and counted by its reason."""

    def __init__(self, reason: Literal["version", "corrupt"], message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


class _RecordVersion(msgspec.Struct, array_like=True):
    version: int


encode_record: Final = msgspec.msgpack.Encoder().encode
_decode_version: Final = msgspec.msgpack.Decoder(_RecordVersion).decode
_decode: Final = msgspec.msgpack.Decoder(QualityRecord).decode


def decode_record(key: bytes | None, value: bytes | None) -> QualityRecord:
    """Decode a record of the topic.

    Raises:
        InvalidQualityRecord: it has another version, or is corrupt.
    """
    try:
        version = _decode_version(value or b"").version
        if version != RECORD_VERSION:
            raise InvalidQualityRecord(
                "version",
                f"version {version}, this program reads version {RECORD_VERSION}: use the trainer's release",
            )
        record = _decode(value or b"")
        _check(key, record)
        record.sketches()
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise InvalidQualityRecord("corrupt", f"not a quality record: {error}") from error
    except CheckpointError as error:
        reason: Literal["version", "corrupt"] = "version" if "of version" in str(error) else "corrupt"
        raise InvalidQualityRecord(reason, str(error)) from error
    return record


def _check(key: bytes | None, record: QualityRecord) -> None:
    if key != record.key:
        raise InvalidQualityRecord("corrupt", f"its key is {key!r}, and that of its content {record.key!r}")
    if not (0 <= record.window.sequence < _MAX_SEQUENCE and 0 <= record.rank < 65_536):
        raise InvalidQualityRecord(
            "corrupt", f"sequence {record.window.sequence} or rank {record.rank} is out of range"
        )
    if not (0 < len(record.run) <= _MAX_NAME_LENGTH and 0 < len(record.model) <= _MAX_NAME_LENGTH):
        raise InvalidQualityRecord("corrupt", f"run {record.run!r} of model {record.model!r} is not a valid name")


def run_name(model: str, topic: str, topic_id: str, config: Mapping[str, str]) -> str:
    """The name of the run of a model on a topic with these settings; equal for equal arguments.

    topic_id: changes when a topic is deleted and created again. config: every setting that affects the result.
    """
    settings = {name: value for name, value in config.items() if name != "model"}
    identity = msgspec.json.encode([model, topic, topic_id, sorted(settings.items())])
    return f"{model}-{hashlib.sha256(identity).hexdigest()[:12]}"
