"""Records of model-quality that no trainer sent: refused and counted by reason, and nothing of them is ever shown."""

import logging
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.model.config import MODEL_NAMES
from prectr.model.quality.record import (
    REASONS,
    RECORD_VERSION,
    InvalidQualityRecord,
    QualityRecord,
    decode_record,
    encode_record,
)
from prectr.model.quality.sketch import BINS, FIXED_POINT_SCALE, MAX_LOGIT, QualitySketch, SketchState
from prectr.model.quality.windows import WINDOW_MS, QualityWindow, segments_bytes
from prectr.ops.monitor import quality_table as limits
from prectr.ops.monitor.admission import Rejections, check_times
from prectr.ops.monitor.quality_table import QualityTable, StoredRecord
from prectr.ops.monitor.restored_table import restore_table

NOW = 1_700_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
HEAD = NOW // WINDOW_MS
RUN = "lr-0123456789ab"
NESTED = b"\x91" * 100_000 + b"\1"


def sketch(seed: int = 1, pages: int = 3) -> SketchState:
    random = np.random.default_rng(seed)
    out = QualitySketch()
    labels = (random.random(5 * pages) < 0.4).astype(np.uint8)
    out.add(random.normal(-1.0, 2.0, 5 * pages), labels, np.arange(pages + 1) * 5)
    return out.encode()


GOOD = sketch()


def record(sequence: int = HEAD, state: SketchState = GOOD, *, run: str = RUN, model: str = "lr") -> QualityRecord:
    window = QualityWindow(sequence, (state, GOOD, GOOD))
    return QualityRecord(RECORD_VERSION, run, 0, model, sequence * WINDOW_MS, window)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidQualityRecord) as found:
        call()
    assert len(str(found.value)) < 500
    return str(found.value.reason)


def decoded(forged: QualityRecord) -> QualityRecord:
    return decode_record(forged.key, encode_record(forged))


def changed(**fields: Any) -> QualityRecord:
    return record(state=msgspec.structs.replace(GOOD, **fields))


def admitted(table: QualityTable, stored: StoredRecord) -> str:
    """Put a record into the table if there is room; returns the reason if there is none, else nothing."""
    try:
        table.check_room(stored)
    except InvalidQualityRecord as error:
        return str(error.reason)
    table.put(stored)
    return ""


IMPRESSIONS = 15


@pytest.mark.parametrize(
    "fields",
    [
        {"pages": -4_600_000_000_000_000_000},
        {"pages": IMPRESSIONS + 1},
        {"pages": 0},
        {"gauc_sum": -3_000_000_000 * FIXED_POINT_SCALE},
        {"gauc_sum": GOOD.gauc_weight * FIXED_POINT_SCALE + 1},
        {"gauc_weight": IMPRESSIONS + 1},
        {"gauc_weight": -1},
        {"loss_sum": -1},
        {"loss_sum": IMPRESSIONS * int(MAX_LOGIT) * FIXED_POINT_SCALE + 1},
        {"predicted_sum": IMPRESSIONS * FIXED_POINT_SCALE + 1},
        {"predicted_sum": (1 << 64) - 1},
        {"counts": (1 << 63).to_bytes(8, "little"), "bins": b"\0\0"},
        {"counts": (1 << 40).to_bytes(8, "little"), "bins": b"\0\0", "pages": 1 << 39},
    ],
)
def test_sums_that_no_pages_can_give_are_refused(fields: dict[str, Any]) -> None:
    assert refusal(lambda: decoded(changed(**fields))) == "range"


def test_201_items_a_page_are_refused_and_200_are_read() -> None:
    bins, none = b"\0\0", {"gauc_sum": 0, "gauc_weight": 0, "loss_sum": 0, "predicted_sum": 0}
    assert decoded(changed(bins=bins, counts=b"\xc8", pages=1, **none)).sketches()["new"].impressions == 200
    assert refusal(lambda: decoded(changed(bins=bins, counts=b"\xc9", pages=1, **none))) == "range"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"model": "gpt"}, "model"),
        ({"model": "l" * 150}, "model"),
        ({"model": "<b>lr"}, "model"),
        ({"run": "lr"}, "range"),
        ({"run": "lr-"}, "range"),
        ({"run": "dnn-0123456789ab"}, "range"),
        ({"run": "lr-" + "a" * 65}, "range"),
        ({"run": "lr-<script>"}, "range"),
        ({"run": "lr-a/0/1\n"}, "range"),
    ],
)
def test_names_that_no_trainer_has_are_refused(names: dict[str, str], reason: str) -> None:
    assert refusal(lambda: decoded(record(**names))) == reason


def test_a_run_counts_for_the_one_model_in_its_name() -> None:
    """`prectr-v2-a` is a run of prectr-v2, and none of prectr, whose name it begins with too."""
    assert decoded(record(run="prectr-v2-a", model="prectr-v2")).model == "prectr-v2"
    assert refusal(lambda: decoded(record(run="prectr-v2-a", model="prectr"))) == "range"


@pytest.mark.parametrize("at", range(8))
def test_deep_nesting_anywhere_in_a_record_is_damage(at: int) -> None:
    fields = msgspec.msgpack.decode(encode_record(record()))
    if at == 6:
        fields[5][1] = "NESTED"
    elif at == 7:
        fields.append("NESTED")
    else:
        fields[at] = "NESTED"
    marker = msgspec.msgpack.encode("NESTED")
    value = msgspec.msgpack.encode(fields).replace(marker, NESTED)
    assert refusal(lambda: decode_record(record().key, value)) == "corrupt"
    assert refusal(lambda: decode_record(record().key, NESTED)) == "corrupt"


anything = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def check_shown(found: QualityRecord) -> None:
    """Nothing that would be shown is out of its range."""
    table = QualityTable()
    table.put(StoredRecord(NOW, found))
    ((model, quality),) = table.quality().items()
    assert model in MODEL_NAMES
    for segments in quality.windows.values():
        for part in segments.values():
            stats = part.stats()
            assert 0 <= stats.clicks <= stats.impressions <= 200 * stats.pages
            assert stats.pages <= stats.impressions
            assert stats.gauc is None or 0 <= stats.gauc <= 1
            assert stats.auc is None or 0 <= stats.auc <= 1
            assert stats.log_loss is None or 0 <= stats.log_loss <= MAX_LOGIT
            assert stats.calibration is None or stats.calibration >= 0


@settings(max_examples=200, deadline=None)
@given(value=st.binary(max_size=200) | anything.map(msgspec.msgpack.encode))
def test_whatever_is_in_the_topic_is_refused_with_a_reason(value: bytes) -> None:
    assert refusal(lambda: decode_record(record().key, value)) in REASONS


def paths(node: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    found = [path]
    if isinstance(node, list):
        for index, each in enumerate(node):
            found += paths(each, (*path, index))
    return found


def replaced(node: Any, path: tuple[int, ...], value: Any) -> Any:
    if not path:
        return value
    return [*node[: path[0]], replaced(node[path[0]], path[1:], value), *node[path[0] + 1 :]]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), value=anything)
def test_a_record_with_one_value_changed_is_refused_or_in_range(data: st.DataObject, value: Any) -> None:
    fields = msgspec.msgpack.decode(encode_record(record()))
    fields = replaced(fields, data.draw(st.sampled_from(paths(fields))), value)
    try:
        key = f"{fields[1]}/{fields[2]}/{fields[5][0]}".encode()
    except (TypeError, IndexError, KeyError):
        key = record().key
    try:
        found = decode_record(key, msgspec.msgpack.encode(fields))
    except InvalidQualityRecord:
        return
    check_shown(found)


def test_a_record_of_the_year_2286_ends_no_window_of_its_model() -> None:
    table = QualityTable()
    for age in range(100):
        table.put(StoredRecord(NOW, record(HEAD - age)))
    shown = table.quality()["lr"]
    forged = decoded(record(9_972_000_000_000 // WINDOW_MS))
    assert refusal(lambda: check_times(forged, NOW, NOW)) == "time"
    assert table.quality()["lr"].windows == shown.windows


@pytest.mark.parametrize(("lead", "is_refused"), [(DAY, False), (DAY + WINDOW_MS, True), (-30 * 365 * DAY, False)])
def test_a_window_may_be_as_far_ahead_of_its_record_as_any_time_zone(lead: int, is_refused: bool) -> None:
    sequence, received_at = HEAD + lead // WINDOW_MS, HEAD * WINDOW_MS
    ahead = msgspec.structs.replace(record(sequence), checkpoint=NOW)
    if is_refused:
        assert refusal(lambda: check_times(ahead, received_at, NOW)) == "time"
    else:
        check_times(ahead, received_at, NOW)


def test_a_checkpoint_or_a_record_of_the_future_is_refused() -> None:
    future = msgspec.structs.replace(record(), checkpoint=NOW + 2 * DAY)
    assert refusal(lambda: check_times(future, NOW, NOW)) == "time"
    assert refusal(lambda: check_times(record(), NOW + 2 * DAY, NOW)) == "time"
    assert refusal(lambda: check_times(record(), -(1 << 62), NOW)) == "time"


def run_name(number: int) -> str:
    return f"lr-{number:064d}"


def test_thousands_of_runs_evict_none_that_publishes_and_are_refused() -> None:
    table = QualityTable()
    table.put(StoredRecord(NOW, record()))
    reasons: Counter[str] = Counter()
    for number in range(3_000):
        reasons[admitted(table, StoredRecord(NOW + number, record(run=run_name(number))))] += 1
        assert table.evict() == []
    assert reasons == {"": 63, "limit": 3_000 - 63}
    assert len(table.sources()) == 64
    assert RUN in {source.run for source in table.sources()}
    # The trainer itself is always let in, and a new one once another has been silent for an hour.
    table.check_room(StoredRecord(NOW + DAY, record(HEAD + 1)))
    table.check_room(StoredRecord(NOW + HOUR + 1, record(run=run_name(4_000))))


def test_what_is_held_for_forged_windows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of the largest size that is accepted, of as many runs as are accepted."""
    monkeypatch.setattr(limits, "MAX_BYTES", 4 << 20)
    bins = np.arange(2 * BINS, dtype="<u2").tobytes()
    pages = 2 * BINS
    large = SketchState(1, bins, (1).to_bytes(8, "little") * pages, pages, 0, 0, 0, 0)
    assert decoded(record(state=large)).sketches()["new"].pages == pages
    table = QualityTable()
    reasons: Counter[str] = Counter()
    tracemalloc.start()
    for number in range(3_000):
        forged = decoded(record(HEAD - number // 64, large, run=run_name(number % 64)))
        reasons[admitted(table, StoredRecord(NOW, forged))] += 1
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons.keys() == {"", "limit"}
    assert reasons[""] * 20_000 < 4 << 20 < (reasons[""] + 1) * 21_500
    assert used < 8 << 20


def test_memory_is_given_back_when_a_window_shrinks_retires_or_its_trainer_is_evicted() -> None:
    table = QualityTable()
    for age in range(1_600, -1, -1):
        table.put(StoredRecord(NOW, record(HEAD - age)))
    table.retire()
    state = table._sources[RUN, 0]
    assert len(state.windows) <= 1_500
    assert state.bytes == sum(map(segments_bytes, state.windows.values()))
    table.put(StoredRecord(NOW, record(state=QualitySketch().encode())))
    assert state.bytes == sum(map(segments_bytes, state.windows.values()))


def test_sums_never_pass_what_an_integer_holds() -> None:
    """A record that is within every bound, sent for thousands of windows."""
    impressions = 1 << 24
    largest = SketchState(
        1,
        b"\0\0",
        impressions.to_bytes(4, "little"),
        impressions,
        impressions * FIXED_POINT_SCALE,
        impressions,
        impressions * int(MAX_LOGIT) * FIXED_POINT_SCALE,
        impressions * FIXED_POINT_SCALE,
    )
    table = QualityTable()
    reasons = {admitted(table, StoredRecord(NOW, decoded(record(HEAD - age, largest)))) for age in range(100)}
    assert reasons == {"", "limit"}
    check = table.quality()["lr"].windows["run"]["all"].stats()
    assert check.log_loss is not None
    assert 0 < check.log_loss <= MAX_LOGIT
    assert 0 < check.pages < 1 << 40
    # Other models are not affected.
    table.check_room(StoredRecord(NOW, record(run="dnn-1", model="dnn")))


def test_each_reason_is_logged_once_with_the_address_and_counted_every_time(caplog: pytest.LogCaptureFixture) -> None:
    rejections = Rejections()
    with caplog.at_level(logging.WARNING):
        for offset in range(500):
            rejections.add(f"model-quality partition 0 offset {offset}", InvalidQualityRecord("range", "too many"))
        rejections.add("model-quality partition 0 offset 900", InvalidQualityRecord("corrupt", "no record"))
    assert dict(rejections.counts) == {"range": 500, "corrupt": 1}
    first, second = [each.getMessage() for each in caplog.records]
    assert first.startswith("model-quality partition 0 offset 0: rejected: too many")
    assert second.startswith("model-quality partition 0 offset 900: rejected: no record")


def test_entries_of_the_tables_that_somebody_else_wrote_are_passed_over() -> None:
    good = StoredRecord(NOW, record())
    table = QualityTable()
    for age in range(1_600):
        table.put(StoredRecord(NOW, record(HEAD - age)))
    ((total, _),) = table.retire()
    encode = msgspec.msgpack.encode
    later = StoredRecord(NOW, record(9_972_000_000_000 // WINDOW_MS, run="lr-x"))
    records = [
        (good.record.key, encode(good)),
        (b"nested", NESTED),
        (b"text", b"text"),
        (b"sums", encode(StoredRecord(NOW, changed(pages=-1)))),
        (b"later", encode(later)),
    ]
    negative = changed(pages=-1).window.segments[0]
    bad_total = msgspec.structs.replace(total, run="lr-bad", segments=(*total.segments[:2], negative))
    totals = [
        (total.key, encode(total)),
        (b"nested", NESTED),
        (b"sums", encode(bad_total)),
        (b"later", encode(msgspec.structs.replace(total, up_to=9_972_000_000_000 // WINDOW_MS))),
    ]
    rejections = Rejections()
    restored = restore_table(totals, records, rejections, NOW)
    expected = QualityTable([total])
    expected.put(good)
    assert restored.quality()["lr"].windows == expected.quality()["lr"].windows
    assert rejections.counts == {"corrupt": 4, "range": 1, "time": 2}
