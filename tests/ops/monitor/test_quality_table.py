"""The board: windows are sums of the newest records, in whatever order and however often they came."""

from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.record import (
    RECORD_VERSION,
    InvalidQualityRecord,
    QualityRecord,
    decode_record,
    encode_record,
    run_name,
)
from prectr.model.quality.sketch import QualitySketch
from prectr.model.quality.windows import WINDOW_MS, QualityWindow
from prectr.ops.monitor import quality_table as module
from prectr.ops.monitor.quality_table import QualityTable, RetiredTotal, StoredRecord

HEAD = 28_333_333
MINUTES = {"5m": 5, "1h": 60, "24h": 1440}


def sketch(seed: int, pages: int = 2) -> QualitySketch:
    random = np.random.default_rng(seed)
    out = QualitySketch()
    if pages:
        impressions = 6 * pages
        logits = random.normal(-1.0, 2.0, impressions)
        labels = (random.random(impressions) < 0.4).astype(np.uint8)
        out.add(logits, labels, np.arange(pages + 1) * 6)
    return out


def record(
    sequence: int, seed: int = 0, *, run: str = "lr-1", model: str = "lr", rank: int = 0, pages: int = 2
) -> QualityRecord:
    new, low, active = (sketch(seed * 3 + place, pages + place - 1).encode() for place in range(3))
    return QualityRecord(
        RECORD_VERSION, run, rank, model, 1_000 * sequence, QualityWindow(sequence, (new, low, active))
    )


def entry(given: QualityRecord, received_at: int = 5) -> StoredRecord:
    return StoredRecord(received_at, given)


def board_of(records: Iterable[QualityRecord]) -> QualityTable:
    board = QualityTable()
    for each in records:
        board.put(entry(each))
    return board


def summed(records: Iterable[QualityRecord]) -> dict[str, QualitySketch]:
    """What is expected, sketch by sketch."""
    parts = {name: QualitySketch() for name in SEGMENTS}
    for each in records:
        for name, part in each.sketches().items():
            parts[name].merge(part)
    return {"all": QualitySketch.total(parts.values()), **parts}


def test_a_display_window_holds_the_quality_windows_of_its_minutes_before_the_newest_page() -> None:
    ages = (0, 4, 5, 59, 60, 1439, 1440, 3000)
    records = [record(HEAD - age, seed) for seed, age in enumerate(ages)]
    quality = board_of(records).quality()["lr"]
    for window, minutes in MINUTES.items():
        inside = [each for each, age in zip(records, ages, strict=True) if age < minutes]
        assert quality.windows[window] == summed(inside)
    assert quality.windows["run"] == summed(records)
    assert quality.event_time_end == (HEAD + 1) * WINDOW_MS
    ends = [slot.end for slot in quality.timeline]
    # Half hours that have pages, oldest first.
    assert ends == [quality.event_time_end - number * 1_800_000 for number in (47, 2, 1, 0)]
    assert quality.timeline[-1].segments == summed(records[:3])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(12)), again=st.lists(st.integers(0, 11), max_size=8))
def test_records_add_up_to_the_same_in_any_order_and_however_often_they_come(
    order: list[int], again: list[int]
) -> None:
    records = [record(HEAD - 7 * number, number, run=f"lr-{number % 2}") for number in range(12)]
    expected = board_of(records).quality()["lr"].windows
    assert board_of(records[number] for number in (*order, *again)).quality()["lr"].windows == expected


def test_a_record_replaces_the_previous_one_of_the_same_run_rank_and_window() -> None:
    first, more = record(HEAD, 1, pages=1), record(HEAD, 2, pages=4)
    others = [record(HEAD, 3, rank=1), record(HEAD, 4, run="lr-2")]
    board = board_of([first, *others, more])
    assert board.quality()["lr"].windows["5m"] == summed([more, *others])
    assert board.retained_windows == 3


def test_models_have_windows_of_their_own_that_end_with_their_own_newest_page() -> None:
    ahead, behind = record(HEAD, 1), record(HEAD - 9_000, 2, run="dnn-1", model="dnn")
    quality = board_of([ahead, behind]).quality()
    assert quality["dnn"].windows["5m"] == summed([behind])
    assert quality["lr"].windows["run"] == summed([ahead])


def test_what_is_too_old_for_any_window_is_kept_as_a_sum_and_never_counted_again() -> None:
    """Through every kill: with the sum stored or not, and with none, some or all of its entries deleted."""
    records = [record(HEAD - age, seed) for seed, age in enumerate(range(0, 1_600, 40))]
    expected = summed(records)
    stored: dict[bytes, StoredRecord] = {}
    pasts: dict[bytes, RetiredTotal] = {}
    board = QualityTable()
    for each in reversed(records):
        if board.put(entry(each)):
            stored[each.key] = entry(each)
        for past, old in board.retire():
            pasts[past.key] = past
            survivors = [dict(stored)]
            for key in old:
                del stored[key]
                survivors.append(dict(stored))
            for left in survivors:
                again = QualityTable(pasts.values())
                taken = {key: again.put(value) for key, value in left.items()}
                assert {key for key, new in taken.items() if new} == left.keys() - set(old)
                assert again.quality()["lr"].windows == board.quality()["lr"].windows
    assert len(stored) < len(records)
    assert board.quality()["lr"].windows["run"] == expected
    # A trainer that says again what is in the sum changes nothing, whatever it says.
    assert not board.put(entry(record(HEAD - 1_560, 77)))
    assert board.quality()["lr"].windows["run"] == expected
    assert max(HEAD - int(key.rpartition(b"/")[2]) for key in stored) < 1_500 + 40


def test_what_is_held_of_a_run_is_bounded() -> None:
    board = QualityTable()
    most = 0
    for sequence in range(HEAD, HEAD + 4_000):
        board.put(entry(record(sequence, 1, pages=1)))
        board.retire()
        most = max(most, board.retained_windows)
    assert most == 1_500


def test_the_longest_inactive_source_is_evicted_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert module.MAX_SOURCES == 64
    monkeypatch.setattr(module, "MAX_SOURCES", 2)
    board = QualityTable()
    for number, received_at in enumerate((30, 10, 20)):
        board.put(entry(record(HEAD + number, run=f"lr-{number}"), received_at))
    (gone,) = board.evict()
    assert gone.record_keys == [record(HEAD + 1, run="lr-1").key]
    assert gone.total_key == b"lr-1/0"
    assert [source.run for source in board.sources()] == ["lr-0", "lr-2"]
    assert board.evict() == []


def test_sources_show_their_last_record_and_checkpoint() -> None:
    board = QualityTable()
    board.put(StoredRecord(100, record(HEAD)))
    board.put(StoredRecord(200, record(HEAD - 1)))
    (source,) = board.sources()
    assert (source.run, source.rank, source.model, source.received_at) == ("lr-1", 0, "lr", 200)
    assert (source.checkpoint_time, source.event_time_end) == (1_000 * HEAD, (HEAD + 1) * WINDOW_MS)


def refusal(key: bytes | None, value: bytes | None) -> str:
    with pytest.raises(InvalidQualityRecord) as found:
        decode_record(key, value)
    return found.value.reason


def test_a_record_comes_back_as_it_was_and_only_whole_ones_of_this_version_do() -> None:
    good = record(HEAD, 4)
    value = encode_record(good)
    assert decode_record(good.key, value) == good
    newer = [RECORD_VERSION + 1, "whatever it may hold"]
    assert refusal(good.key, msgspec.msgpack.encode(newer)) == "version"
    fields = msgspec.msgpack.decode(value)
    fields[5][1][0][0] = 2
    assert refusal(good.key, msgspec.msgpack.encode(fields)) == "version"
    for damaged in (None, b"", b"text", value[:-1], value + b"\x00", msgspec.msgpack.encode([RECORD_VERSION])):
        assert refusal(good.key, damaged) == "corrupt"
    for key in (None, b"lr-1/0/1"):
        assert refusal(key, value) == "corrupt"
    for wrong in (record(-1), record(2**40), record(HEAD, run=""), record(HEAD, rank=-1)):
        assert refusal(wrong.key, encode_record(wrong)) == "range"
    unknown = record(HEAD, model="m" * 200)
    assert refusal(unknown.key, encode_record(unknown)) == "model"


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_record_with_a_wrong_byte_is_refused_or_read_and_never_fails_otherwise(at: int, byte: int) -> None:
    good = record(HEAD, 5)
    value = bytearray(encode_record(good))
    value[at % len(value)] = byte
    try:
        found = decode_record(good.key, bytes(value))
    except InvalidQualityRecord:
        return
    board_of([found]).quality()


def test_equal_runs_have_one_name_and_other_settings_or_topics_another() -> None:
    config = {"seed": "1", "model": "lr,dnn"}
    name = run_name("lr", "training-examples", "id-1", config)
    assert name.startswith("lr-")
    assert name == run_name("lr", "training-examples", "id-1", {"model": "lr", "seed": "1"})
    others = {
        run_name("dnn", "training-examples", "id-1", config),
        run_name("lr", "p.training-examples", "id-1", config),
        run_name("lr", "training-examples", "id-2", config),
        run_name("lr", "training-examples", "id-1", {**config, "seed": "2"}),
    }
    assert len(others | {name}) == 5
