"""Records of the topic `model-quality`: a trainer's quality by window, for the monitor."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from prectr.model.config import MODEL_NAMES
from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.sketch import QualitySketch
from prectr.model.quality.windows import WINDOW_MS, QualityWindow
from prectr.state.encoding import DAMAGE
from prectr.state.errors import CheckpointError, PrectrError
from prectr.stream.events.contract import MAX_ITEMS
from prectr.stream.events.event_time import MAX_TS, MIN_TS

RECORD_VERSION: Final = 1
MAX_WINDOW_IMPRESSIONS: Final = 1 << 24
"""Impressions of a segment in one window: 280,000 a second."""
_MAX_RANKS: Final = 65_536
_RUN_ID: Final = re.compile(r"[0-9a-zA-Z]{1,64}")
"""What follows the model in the name of a run."""
_SHOWN: Final = 40
"""Characters that are quoted of a name."""

RejectionReason = Literal["version", "corrupt", "range", "model", "time", "limit"]
REASONS: Final[Mapping[str, str]] = {
    "version": "of a trainer of another release",
    "corrupt": "damaged, or not a quality record",
    "range": "a number or name that no trainer sends",
    "model": "not one of our models",
    "time": "of a time that has not come yet, by over 24 h",
    "limit": "more trainers, memory or impressions than the monitor has room for",
}
"""Why a record is skipped, in words."""


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

    def __init__(self, reason: RejectionReason, message: str) -> None:
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
    except DAMAGE as error:
        raise InvalidQualityRecord("corrupt", f"not a quality record: {str(error) or type(error).__name__}") from error
    check_record(record)
    if key != record.key:
        shown = "nothing" if key is None else repr(key[:_SHOWN])
        raise InvalidQualityRecord("corrupt", f"its key is {shown}, and that of its content {record.key!r}")
    return record


def check_record(record: QualityRecord) -> None:
    """Check that a trainer can have sent a record with these names and numbers.

    Raises:
        InvalidQualityRecord: it cannot.
    """
    check_run(record.run, record.rank, record.model)
    _check_window(record)


def check_run(run: str, rank: int, model: str) -> None:
    """Check that a run has a name that `run_name` gives, of a known model; raises InvalidQualityRecord."""
    if model not in MODEL_NAMES:
        raise InvalidQualityRecord(
            "model", f"{model[:_SHOWN]!r} is none of the models {', '.join(MODEL_NAMES)}: another program wrote it"
        )
    prefix = f"{model}-"
    if not (run.startswith(prefix) and _RUN_ID.fullmatch(run, len(prefix))):
        raise InvalidQualityRecord("range", f"{run[:_SHOWN]!r} is not the name of a run of {model}")
    if not 0 <= rank < _MAX_RANKS:
        raise InvalidQualityRecord("range", f"rank {rank} is out of range")


def _check_window(record: QualityRecord) -> None:
    sequence, checkpoint = record.window.sequence, record.checkpoint
    if not MIN_TS // WINDOW_MS <= sequence <= MAX_TS // WINDOW_MS:
        raise InvalidQualityRecord("range", f"window {sequence} is not in the years 2000 to 9999")
    if not 0 <= checkpoint <= MAX_TS:
        raise InvalidQualityRecord("range", f"checkpoint time {checkpoint} is out of range")
    try:
        sketches = record.sketches()
    except CheckpointError as error:
        reason: RejectionReason = "version" if "of version" in str(error) else "range"
        raise InvalidQualityRecord(reason, str(error)) from error
    for name, sketch in sketches.items():
        pages, impressions = sketch.pages, sketch.impressions
        if impressions > min(MAX_WINDOW_IMPRESSIONS, pages * MAX_ITEMS):
            raise InvalidQualityRecord(
                "range", f"{impressions} impressions on {pages} pages of {name} users in one minute are too many"
            )


def run_name(model: str, topic: str, topic_id: str, config: Mapping[str, str]) -> str:
    """The name of the run of a model on a topic with these settings; equal for equal arguments.

    topic_id: changes when a topic is deleted and created again. config: every setting that affects the result.
    """
    settings = {name: value for name, value in config.items() if name != "model"}
    identity = msgspec.json.encode([model, topic, topic_id, sorted(settings.items())])
    return f"{model}-{hashlib.sha256(identity).hexdigest()[:12]}"
