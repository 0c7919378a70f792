"""Rebuilds the quality table from what Faust has stored, and passes over entries that the monitor did not write."""

from collections.abc import Iterable
from typing import Final

import msgspec

from prectr.model.quality.record import InvalidQualityRecord, check_record, check_run
from prectr.model.quality.sketch import QualitySketch
from prectr.model.quality.windows import WINDOW_MS
from prectr.ops.monitor.admission import Rejections, check_time, check_times
from prectr.ops.monitor.quality_table import QualityTable, RetiredTotal, StoredRecord
from prectr.state.encoding import DAMAGE
from prectr.state.errors import CheckpointError

_decode_record: Final = msgspec.msgpack.Decoder(StoredRecord).decode
_decode_total: Final = msgspec.msgpack.Decoder(RetiredTotal).decode


def restore_table(
    totals: Iterable[tuple[bytes, bytes]],
    records: Iterable[tuple[bytes, bytes]],
    rejections: Rejections,
    now: int,
) -> QualityTable:
    """Restore the quality table from the entries, key and value, of both stored tables.

    Others can write to the changelogs as to any topic: entries that are damaged are counted and skipped.

    Args:
        now: by the clock of this machine, ms since the epoch.
    """
    table = QualityTable(_valid_totals(totals, rejections, now))
    for key, value in records:
        try:
            stored = _decode_record(value)
            check_record(stored.record)
            check_times(stored.record, stored.received_at, now)
            table.put(stored)
        except DAMAGE as error:
            _reject("quality-windows", key, error, rejections)
        except InvalidQualityRecord as error:
            rejections.add(_name("quality-windows", key), error)
    return table


def _valid_totals(totals: Iterable[tuple[bytes, bytes]], rejections: Rejections, now: int) -> Iterable[RetiredTotal]:
    for key, value in totals:
        try:
            total = _decode_total(value)
            check_run(total.run, total.rank, total.model)
            check_time("the end of the total", total.up_to * WINDOW_MS, "this machine's clock", now)
            for sketch in total.segments:
                QualitySketch.decode(sketch)
            yield total
        except (*DAMAGE, CheckpointError) as error:
            _reject("quality-totals", key, error, rejections)
        except InvalidQualityRecord as error:
            rejections.add(_name("quality-totals", key), error)


def _reject(table: str, key: bytes, error: BaseException, rejections: Rejections) -> None:
    reason = str(error) or type(error).__name__
    rejections.add(_name(table, key), InvalidQualityRecord("corrupt", f"not an entry of the monitor: {reason}"))


def _name(table: str, key: bytes) -> str:
    return f"changelog of {table}, key {bytes(key)[:80]!r}"
