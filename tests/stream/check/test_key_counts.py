"""Visitors and queries: exact counts up to a capacity, estimates beyond."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from prectr.stream.check.key_counts import KeyCounts
from tests.kit.stages.events import MINUTE, SECOND, T, click, page
from tests.stream.check.checked import check_lines


@given(st.lists(st.sampled_from("abcdefgh")))
def test_counts_are_exact_up_to_the_capacity(keys: list[str]) -> None:
    counts = KeyCounts(capacity=8)
    for key in keys:
        counts.add(key)
    report, expected = counts.report(), Counter(keys)
    assert (report.keys, report.events, report.exact) == (len(expected), len(keys), True)
    assert report.largest == max(expected.values(), default=0)
    assert report.largest_key is None or expected[report.largest_key] == report.largest


def test_beyond_the_capacity_keys_are_estimated_and_the_largest_is_found() -> None:
    counts = KeyCounts(capacity=1_000, sampled_keys=2_000)
    keys = [f"u{number}" for number in range(20_000)] * 2 + ["hot"] * 5_000
    Random(1).shuffle(keys)
    for key in keys:
        counts.add(key)
    report = counts.report()
    assert not report.exact
    assert report.events == 45_000
    # The standard error is at most 1/sqrt(1,000), 3.2 %; this sample of hashes is always the same.
    assert abs(report.keys - 20_001) < 0.1 * 20_001
    assert report.largest_key == "hot"
    assert 4_000 <= report.largest <= 5_000


def test_all_visitors_under_one_id_are_told() -> None:
    lines = []
    for number in range(60):
        lines += [page(f"r{number}", "anonymous", T + number * MINUTE)]
        lines += [click(f"r{number}", "anonymous", T + number * MINUTE + SECOND)]
    report = check_lines(lines, partitions=4)
    visitors = [finding for finding in report.findings if finding.subject == "visitors"]
    assert visitors[0].severity == "problem"
    assert visitors[0].message == "all events are under the one id 'anonymous'"
    assert visitors[1].message == "the fullest of 4 partitions has 4.0 times an even share"
    assert (report.visitors.keys, report.visitors.largest, sorted(report.partitions)) == (1, 120, [0, 0, 0, 120])
