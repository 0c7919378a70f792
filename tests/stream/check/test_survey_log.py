"""Files of a log: merged by time, of other content, cut off."""

import gzip
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prectr.state.errors import InputError, UsageError
from prectr.stream.check import CheckReport, survey_log
from prectr.stream.config import PipelineConfig
from prectr.stream.readers import Order
from testkit.command import write_log
from tests.kit.stages.events import MINUTE, SECOND, T, click, page
from tests.kit.stages.replays import replay_to_end
from tests.oracle.world import Disorder, make_world


def survey(*paths: Path, partitions: int = 2, order: Order = "time") -> CheckReport:
    return survey_log(paths, PipelineConfig(partitions=partitions), batch_pages=16, batch_span=60.0, order=order)


def pages_and_clicks() -> tuple[list[bytes], list[bytes]]:
    pages = [page(f"r{number}", f"u{number % 5}", T + number * MINUTE) for number in range(30)]
    clicks = [click(f"r{number}", f"u{number % 5}", T + number * MINUTE + 5 * SECOND) for number in range(30)]
    return pages, clicks


def test_pages_and_clicks_in_two_files_are_merged_by_time(tmp_path: Path) -> None:
    pages, clicks = pages_and_clicks()
    report = survey(write_log(tmp_path / "pages.jsonl", pages), write_log(tmp_path / "clicks.jsonl", clicks))
    assert (report.clicks.configured.joined, report.order.behind, report.order.overlapping_files) == (30, 0, 1)
    assert [(file.lines, file.times) for file in report.files] == [
        (30, (T, T + 29 * MINUTE)),
        (30, (T + 5 * SECOND, T + 29 * MINUTE + 5 * SECOND)),
    ]
    assert report.ready


def test_the_file_that_is_out_of_order_is_named(tmp_path: Path) -> None:
    pages, clicks = pages_and_clicks()
    first = write_log(tmp_path / "1.jsonl", pages)
    second = write_log(tmp_path / "2.jsonl", clicks[::-1])
    report = survey(first, second)
    assert not report.ready
    assert report.files[0].behind == 0 < report.files[1].behind
    advice = next(finding.advice for finding in report.findings if finding.subject == "order")
    assert advice.endswith(f"most of it is in {second}")


@pytest.mark.parametrize(("partitions", "order"), [(1, "time"), (3, "time"), (2, "given")])
def test_counts_are_those_of_a_replay_of_the_files(tmp_path: Path, partitions: int, order: Order) -> None:
    lines = make_world(3, Disorder(pages=150, users=9, gap=30.0, late=0.1, nights=2, malformed=0.05, conflict=0.05))
    third = len(lines) // 3 + 1
    thirds = [lines[part::3] if order == "time" else lines[part * third : (part + 1) * third] for part in range(3)]
    paths = [write_log(tmp_path / f"{part}.jsonl", some) for part, some in enumerate(thirds)]
    config = PipelineConfig(partitions=partitions)
    outcomes = replay_to_end(paths, tmp_path / "run", config=config, order=order).outcomes
    report = survey(*paths, partitions=partitions, order=order)
    assert report.clicks.configured.joined == outcomes.clicks.joined
    assert report.lines == outcomes.records == len(lines)
    validity = report.validity
    assert validity.empty_pages == outcomes.pages.empty
    assert sum(validity.other_actions.values()) == outcomes.clicks.other_action
    assert validity.pages + validity.clicks + outcomes.clicks.other_action + validity.invalid == len(lines)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    pages, _ = pages_and_clicks()
    array = tmp_path / "array.jsonl"
    array.write_bytes(b"[" + b",\n".join(pages) + b"]")
    report = survey(array)
    assert not report.ready
    assert report.files[0].other_content is not None
    assert "JSON array" in report.files[0].other_content
    assert "prectr convert" in report.findings[0].advice
    assert [finding.subject for finding in report.findings] == ["files"]
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="unknown file type"):
        survey(tmp_path / "log.csv")
    with pytest.raises(InputError, match=r"none\.jsonl"):
        survey(tmp_path / "none.jsonl")


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    pages, clicks = pages_and_clicks()
    lines = list(itertools.chain.from_iterable(zip(pages, clicks, strict=True)))
    (tmp_path / "log.jsonl").write_bytes(gzip.compress(b"\n".join(lines)))
    report = survey(tmp_path / "log.jsonl")
    assert (report.validity.pages, report.validity.clicks, report.ready) == (30, 30, True)


def test_what_can_be_read_of_a_file_that_is_cut_off_is_checked(tmp_path: Path) -> None:
    pages, clicks = pages_and_clicks()
    data = gzip.compress(b"\n".join(pages[:1] * 3_000 + clicks))
    (tmp_path / "log.jsonl.gz").write_bytes(data[:-20])
    report = survey(tmp_path / "log.jsonl.gz")
    assert report.lines > 1_000
    assert report.read_error is not None
    assert "cut off" in report.read_error
    assert not report.ready


def test_columns_that_are_not_read_are_listed_and_a_replay_tells_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"type": "impression", "request_id": "r", "user_id": "u", "query": "q", "ts": T, "margin": 0.3}
    pq.write_table(pa.Table.from_pylist([{**row, "items": [{"item_id": "a", "stock": 2}]}]), tmp_path / "a.parquet")
    lines = write_log(tmp_path / "b.jsonl", [page("r2", "u", T)])
    report = survey(tmp_path / "a.parquet", lines)
    assert report.fields.ignored == {"column.margin": 0.5, "column.items.stock": 0.5}
    replay_to_end([tmp_path / "a.parquet"], tmp_path / "run")
    told = [record.getMessage() for record in caplog.records if "is not read" in record.getMessage()]
    assert [message.split(" of ")[0] for message in told] == ['the column "margin"', 'the column "items.stock"']


def test_a_file_that_cannot_be_read_is_not_called_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(page("r", "u", T) * 100)[:20])
    (found,) = (finding for finding in survey(tmp_path / "log.jsonl.gz").findings if finding.severity == "problem")
    assert found.subject == "files"
