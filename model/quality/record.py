"""What a trainer says of its quality to whoever sums it up: the records of the topic `model-quality`."""

import hashlib
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.sketch import QualitySketch
from prectr.model.quality.windows import Stretch
from prectr.state.errors import CheckpointError, PrectrError

VERSION: Final = 1
_LATEST: Final = 10_000_000_000_000 // 60_000
"""No clock that a broker knows of is beyond the year 2286."""
_LONGEST: Final = 128


class QualityRecord(msgspec.Struct, frozen=True, array_like=True):
    """Quality of a stretch of the one order, as one process of a run has counted it so far.

    A record replaces every earlier one of its (run, rank, sequence). run: what is learned, from what, with which
    settings; equal runs count the same. rank: of the process among those that train together. checkpoint: when the
    checkpoint that the stretch is in was written, ms since the epoch.
    """

    version: int
    run: str
    rank: int
    model: str
    checkpoint: int
    stretch: Stretch

    @property
    def key(self) -> bytes:
        """(run, rank, sequence)."""
        return record_key(self.run, self.rank, self.stretch.sequence)

    def sketches(self) -> dict[str, QualitySketch]:
        """By segment."""
        return {name: QualitySketch.decode(state) for name, state in zip(SEGMENTS, self.stretch.segments, strict=True)}


def record_key(run: str, rank: int, sequence: int) -> bytes:
    """The key of a record."""
    return f"{run}/{rank}/{sequence}".encode()


class RefusedRecord(PrectrError):
    """A record that cannot be used; it is counted by its reason, and stops nothing."""

    def __init__(self, reason: Literal["version", "damaged"], message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


class _Head(msgspec.Struct, array_like=True):
    version: int


encode_record: Final = msgspec.msgpack.Encoder().encode
_decode_head: Final = msgspec.msgpack.Decoder(_Head).decode
_decode: Final = msgspec.msgpack.Decoder(QualityRecord).decode


def decode_record(key: bytes | None, value: bytes | None) -> QualityRecord:
    """Read a record of the topic.

    Raises:
        RefusedRecord: it is of another version, or damaged.
    """
    try:
        version = _decode_head(value or b"").version
        if version != VERSION:
            raise RefusedRecord(
                "version",
                f"version {version}, this program reads version {VERSION}: run the monitor of the release that the "
                "trainer is of",
            )
        record = _decode(value or b"")
        _check(key, record)
        record.sketches()
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise RefusedRecord("damaged", f"not a record of quality: {error}") from error
    except CheckpointError as error:
        reason: Literal["version", "damaged"] = "version" if "of version" in str(error) else "damaged"
        raise RefusedRecord(reason, str(error)) from error
    return record


def _check(key: bytes | None, record: QualityRecord) -> None:
    if key != record.key:
        raise RefusedRecord("damaged", f"its key is {key!r}, and that of its content {record.key!r}")
    if not (0 <= record.stretch.sequence < _LATEST and 0 <= record.rank < 65_536):
        raise RefusedRecord("damaged", f"sequence {record.stretch.sequence} of rank {record.rank} cannot be")
    if not (0 < len(record.run) <= _LONGEST and 0 < len(record.model) <= _LONGEST):
        raise RefusedRecord("damaged", f"run {record.run!r} of model {record.model!r} is no name")


def run_name(model: str, topic: str, topic_id: str, config: Mapping[str, str]) -> str:
    """The run of a model that learns from a topic under these settings: the same for whoever does the same.

    topic_id: differs when a topic is made anew under its old name. config: every setting that decides the result.
    """
    settings = {name: value for name, value in config.items() if name != "model"}
    said = msgspec.json.encode([model, topic, topic_id, sorted(settings.items())])
    return f"{model}-{hashlib.sha256(said).hexdigest()[:12]}"
