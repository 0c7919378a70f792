"""Stage `join` over logs whose clocks are wrong: against the brute-force oracle, however the records are split."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testkit.oracle.oracle import expected_replay
from tests.kit.stages.clock_logs import clock_world
from tests.kit.stages.join_driver import CrashPoint, JoinDriver, clicks_of, pages_of, random_sizes

pytestmark = pytest.mark.usefixtures("implementation")


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    sizes=st.integers(0, 1 << 30),
    crashes=st.dictionaries(st.integers(1, 300), st.sampled_from(CrashPoint), max_size=8),
    flush=st.booleans(),
)
def test_wrong_clocks_end_as_the_rule_says(seed: int, sizes: int, crashes: dict[int, CrashPoint], flush: bool) -> None:
    lines = clock_world(seed, 110)
    driver = JoinDriver()
    driver.run(lines, random_sizes(sizes, 60), crashes)
    if flush:
        driver.flush()
    expected = expected_replay(lines, 1, flush=flush)
    found = [(page.request_id, list(page.labels), page.user_activity) for page in driver.joined_pages]
    assert found == [
        (example["request_id"], [item["click"] for item in example["items"]], example["user_activity"])
        for example in expected["examples"]
    ]
    assert Counter(rejected.value for rejected in driver.dead_letters) == Counter(expected["dead"])
    assert driver.outcomes.imbalances() == []
    for found_counts, kind in ((pages_of(driver), "pages"), (clicks_of(driver), "clicks")):
        counts = expected["outcomes"][kind]
        assert found_counts == {name: count for name, count in counts.items() if count and name != "in"}
