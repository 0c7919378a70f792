"""Files that are merged by event time: the order, whatever is read at a time, and wherever reading is resumed."""

import heapq
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prectr.state.errors import InputError
from prectr.stream.readers import LogFile, LogPart, Order, read_in_order
from prectr.stream.readers.event_times import LOOKAHEAD, NO_TIME, event_times

T = 1_700_000_000_000
HOUR = 3_600_000
YEAR_2099 = 4_070_908_800_000


def event(ts: int, name: str = "r") -> bytes:
    return json.dumps({"type": "click", "request_id": name, "user_id": "u", "item_id": "a", "ts": ts}).encode()


def write(folder: Path, files: Sequence[Sequence[bytes]]) -> list[LogFile]:
    log = []
    for number, lines in enumerate(files):
        path = folder / f"{number}.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        log.append(LogFile(path))
    return log


def read(
    log: Sequence[LogFile], batch_lines: int = 7, order: Order = "time", stop_after: int | None = None
) -> list[bytes]:
    """Read a log; with `stop_after`, start anew from what was read, after so many batches at a time."""
    parts = [LogPart(file, index) for index, file in enumerate(log)]
    lines: list[bytes] = []
    while True:
        for number, batch in enumerate(read_in_order(parts, batch_lines, order=order), 1):
            assert len(batch.lines) == sum(run.lines for run in batch.runs) <= batch_lines
            lines += batch.lines
            for run in batch.runs:
                part = next(part for part in parts if part.index == run.file)
                assert run.first_line == part.lines_read
                part.lines_read, part.time = part.lines_read + run.lines, run.time
            parts = [part for part in parts if part.index not in batch.ended]
            if number == stop_after:
                break
        if not parts:
            return lines


def names(lines: Sequence[bytes]) -> list[str]:
    return [json.loads(line)["request_id"] for line in lines]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.integers(0, 40), max_size=80).map(sorted), min_size=1, max_size=5),
    batch_lines=st.sampled_from([1, 3, 1000]),
    stop_after=st.sampled_from([None, 1, 2]),
)
def test_files_in_order_merge_into_one_log_in_order(
    files: list[list[int]], batch_lines: int, stop_after: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of equal times, those of the first file come first."""
    log = write(
        tmp_path_factory.mktemp("log"),
        [[event(T + 60_000 * ts, f"{file}-{n}") for n, ts in enumerate(times)] for file, times in enumerate(files)],
    )
    expected = heapq.merge(
        *([(ts, file, n) for n, ts in enumerate(times)] for file, times in enumerate(files)), key=lambda each: each[:2]
    )
    assert names(read(log, batch_lines, stop_after=stop_after)) == [f"{file}-{n}" for _, file, n in expected]


def test_every_line_is_read_once_in_the_order_of_its_file_whatever_is_in_it(tmp_path: Path) -> None:
    files = [
        [event(T + 5, "a0"), b"junk", b"", event(1, "a3"), event(YEAR_2099, "a4"), event(T + 9, "a5"), b"\xff"],
        [b"{}", event(T + 6, "b1"), event(T + 2, "b2"), b"[" * 5000],
        [],
    ]
    for stop_after in (None, 1):
        lines = read(write(tmp_path, files), 2, stop_after=stop_after)
        assert sorted(lines) == sorted(line for file in files for line in file)
        for file in files:
            assert [line for line in lines if line in file] == file


def test_a_line_without_a_time_follows_the_line_before_it(tmp_path: Path) -> None:
    files = [[b"first", event(T + 1, "a"), b"junk", event(T + 4, "c")], [event(T, "z"), event(T + 2, "b")]]
    assert read(write(tmp_path, files)) == [b"first", files[1][0], files[0][1], b"junk", files[1][1], files[0][3]]


@pytest.mark.parametrize("wrong", [YEAR_2099, T + 8 * HOUR])
def test_a_clock_that_is_ahead_holds_back_nothing_of_its_file(tmp_path: Path, wrong: int) -> None:
    """The event goes with the one before it, even if it is the first; all others are in order."""
    minutes = range(200)
    first = [event(T + 60_000 * n if n % 10 else wrong, f"a{n:03}") for n in minutes]
    second = [event(T + 60_000 * n + 30_000, f"b{n:03}") for n in minutes]
    found = names(read(write(tmp_path, [first, second])))
    right = [name for name in found if name[0] == "b" or int(name[1:]) % 10]
    assert right == [name for n in minutes for name in ([f"a{n:03}"] if n % 10 else []) + [f"b{n:03}"]]
    for n in range(10, 200, 10):
        assert found.index(f"a{n - 1:03}") + 1 == found.index(f"a{n:03}")
    assert found[0] == "a000"


def test_a_night_in_a_file_is_no_wrong_clock(tmp_path: Path) -> None:
    days = [T + day * 24 * HOUR + n * 1000 for day in range(3) for n in range(LOOKAHEAD)]
    busy = [T + n * HOUR for n in range(72)]
    log = write(tmp_path, [[event(ts) for ts in days], [event(ts) for ts in busy]])
    assert read(log) == [event(ts) for ts in sorted(days + busy)]


def test_as_given_files_follow_each_other(tmp_path: Path) -> None:
    files = [[event(T + 9), event(T + 1)], [event(T), b"junk"], [], [event(T + 3)]]
    for stop_after in (None, 1):
        assert read(write(tmp_path, files), 2, "given", stop_after) == [line for file in files for line in file]


def test_thousands_of_files_are_merged_with_few_of_them_open_and_little_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.readers.raw_file._MAX_OPEN", 4)
    monkeypatch.setattr("prectr.stream.readers.merge._MAX_PEEKED_BYTES", 10_000)
    monkeypatch.setattr("prectr.stream.readers.merge._MIN_BLOCK_BYTES", 256)
    monkeypatch.setattr("prectr.stream.readers.merge._SHARED_BYTES", 256)
    count = 300
    log = write(tmp_path, [[event(T + 1000 * (n * count + file)) for n in range(20)] for file in range(count)])
    before = len(os.listdir("/proc/self/fd"))
    most, lines = 0, []
    parts = [LogPart(file, index) for index, file in enumerate(log)]
    for batch in read_in_order(parts, 50, order="time"):
        lines += batch.lines
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert lines == [event(T + 1000 * n) for n in range(20 * count)]
    assert most <= 4


def test_an_error_comes_after_everything_that_is_before_it_in_time(tmp_path: Path) -> None:
    good, bad = write(tmp_path, [[event(T + n) for n in range(0, 100, 2)], [event(T + n) for n in range(1, 100, 2)]])
    whole = bad.path.read_bytes()
    bad.path.write_bytes(whole[:1000])
    read_lines: list[bytes] = []
    batches = read_in_order([LogPart(good, 0), LogPart(bad, 1)], 10, order="time")
    with pytest.raises(InputError, match=r"1\.jsonl: it was cut short while it was read"):
        read_lines.extend(line for batch in batches for line in batch.lines)
    kept = whole[:1000].count(b"\n")
    assert read_lines == [event(T + n) for n in range(2 * kept)]


def test_the_time_of_a_line_is_that_of_its_event() -> None:
    lines = [
        event(T),
        event(-1),
        event(253_402_300_800_000),
        b"{",
        b"",
        b'{"ts": "x"}',
        b"[" * 10**5,
        b"\xff",
        event(7),
    ]
    assert event_times(lines).tolist()[:8] == [T, *[NO_TIME] * 7]
