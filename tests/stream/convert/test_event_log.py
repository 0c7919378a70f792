"""Promises of the output: every format holds the same log, the same input the same bytes, and errors leave no file."""

import random
from pathlib import Path
from typing import Any

import pytest

import prectr.stream.convert.convert
from prectr.state.errors import InputError, PrectrError, UsageError
from prectr.stream.convert.convert import convert
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.events.decode import decode_lines
from testkit.command import run_replay_command
from tests.stream.convert.conversion import T, converted, events_in, write_lines

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def searches(count: int) -> list[dict[str, Any]]:
    """Searches of a small shop, one row each, in no order of time."""
    draw = random.Random(7)
    rows = []
    for number in range(count):
        items = draw.sample([f"i{n}" for n in range(40)], 5)
        row = {"sid": number, "uid": f"u{draw.randrange(20)}", "q": draw.choice(["red shoe", "hat", "größe 😀"])}
        rows.append({**row, "ts": T + draw.randrange(10**8), "items": items, "clicked": draw.sample(items, number % 3)})
    return rows


MAPPING = """
[page]
request_id = "sid"
user_id = "uid"
query = "q"
ts = "ts"
[page.items]
each = "items"
item_id = "item"
[[click]]
request_id = "row.sid"
user_id = "row.uid"
ts = "row.ts"
each = "clicked"
item_id = "item"
"""


@pytest.fixture
def source(tmp_path: Path) -> tuple[str, Path]:
    (tmp_path / "m.toml").write_text(MAPPING)
    return str(tmp_path / "m.toml"), write_lines(tmp_path / "in.jsonl", searches(400))


def test_every_format_replays_to_the_same_digests(tmp_path: Path, source: tuple[str, Path]) -> None:
    mapping, rows = source
    digests = []
    for suffix in SUFFIXES:
        log = tmp_path / f"log{suffix}"
        convert(mapping, [rows], log)
        report = run_replay_command(log, "--no-train", run_dir=tmp_path / f"run{suffix}")
        digests.append([report["examples_sha256"], report["aggregates_sha256"]])
        assert report["outcomes"]["pages"]["in"] == 400
        assert report["outcomes"]["clicks"]["joined"] == report["outcomes"]["clicks"]["in"] == 399
    assert None not in digests[0]
    assert digests[1:] == digests[:1] * 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_input_gives_the_same_bytes_also_in_place_of_an_older_log(
    tmp_path: Path, source: tuple[str, Path], suffix: str
) -> None:
    mapping, rows = source
    first, second = tmp_path / f"a{suffix}", tmp_path / "new" / f"b{suffix}"
    convert(mapping, [rows], first)
    second.parent.mkdir()
    second.write_bytes(b"older")
    convert(mapping, [rows], second)
    assert first.read_bytes() == second.read_bytes()
    assert list(second.parent.iterdir()) == [second]


def test_events_come_by_time_with_pages_before_their_clicks_and_all_are_valid(
    tmp_path: Path, source: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping, rows = source
    whole, _ = converted(tmp_path, mapping, [rows])
    assert whole == sorted(whole, key=lambda event: (event["ts"], event["type"] == "click"))
    assert len(whole) == 400 + 399
    decoded = decode_lines([line.encode() for line in (tmp_path / "converted.jsonl").read_text().splitlines()])
    assert [event.ts for event in decoded if not hasattr(event, "reason")] == [event["ts"] for event in whole]
    # The same, where next to nothing fits into memory.
    monkeypatch.setattr(
        prectr.stream.convert.convert, "ExternalSorter", lambda folder: ExternalSorter(folder, run_bytes=2000)
    )
    assert converted(tmp_path, mapping, [rows])[0] == whole


@pytest.mark.parametrize("name", ["log", "log.csv", "log.json", "log.gz", "log.ndjson", "jsonl"])
def test_other_names_of_an_output_are_rejected(tmp_path: Path, source: tuple[str, Path], name: str) -> None:
    with pytest.raises(UsageError, match="must end in one of"):
        convert(source[0], [source[1]], tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_after_an_error(tmp_path: Path, source: tuple[str, Path], suffix: str) -> None:
    out = tmp_path / "new" / f"log{suffix}"
    broken = tmp_path / "broken.json"
    broken.write_text('[{"sid": 1}, oops')
    with pytest.raises(InputError, match="not JSON"):
        convert(source[0], [source[1], broken], out)
    assert list(out.parent.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_error(
    tmp_path: Path, source: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(PrectrError, match="cannot be written"):
        convert(source[0], [source[1]], tmp_path / "log.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "log.jsonl", "m.toml"]


def test_inputs_are_checked_before_anything_is_read(tmp_path: Path, source: tuple[str, Path]) -> None:
    mapping, rows = source
    before = rows.read_bytes()
    with pytest.raises(UsageError, match="is one of the inputs"):
        convert(mapping, [rows], rows)
    with pytest.raises(UsageError, match="named twice"):
        convert(mapping, [rows, tmp_path / "." / "in.jsonl"], tmp_path / "log.jsonl")
    with pytest.raises(UsageError, match="no input"):
        convert(mapping, [], tmp_path / "log.jsonl")
    with pytest.raises(UsageError, match="no mapping file"):
        convert("solr", [rows], tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        convert(mapping, [tmp_path / "none.csv"], tmp_path / "log.jsonl")
    assert rows.read_bytes() == before


def test_the_first_rows_alone_can_be_converted(tmp_path: Path, source: tuple[str, Path]) -> None:
    events, report = converted(tmp_path, source[0], [source[1]], max_rows=7)
    assert (report.rows, report.pages) == (7, 7)
    assert events == events_in(tmp_path / "converted.jsonl")
