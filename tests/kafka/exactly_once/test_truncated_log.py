"""A log that lost its end while nothing ran, and has grown beyond it since: noticed by the epochs of its records."""

from pathlib import Path

import pytest

from testkit.command import read_written_examples, write_log
from testkit.kafka_broker import Broker
from tests.kafka.live import Live
from tests.kit.stages.events import T, page


def pages(first: int, count: int) -> list[dict[str, object]]:
    return [page(f"r{n}", f"u{n % 20}", T + n * 60_000) for n in range(first, first + count)]


@pytest.mark.parametrize("lagging", [False, True], ids=["state at the commit", "state lost"])
def test_a_log_that_was_truncated_and_written_anew_is_refused(
    own_broker: Broker, tmp_path: Path, lagging: bool
) -> None:
    own_broker.start()
    live = Live(own_broker.address, "", tmp_path, partitions=1)
    try:
        live.create()
        # Several batches: one that is cut through is lost as a whole.
        for part in range(3):
            live.load(write_log(tmp_path / f"{part}.jsonl", pages(100 * part, 100)))
        live.stream(1)
        before = read_written_examples(live.examples())
        own_broker.kill()
        own_broker.truncate("search-events", 0, 0.5)
        own_broker.start()
        live.load(write_log(tmp_path / "new.jsonl", pages(5_000, 1_000)))
        state_dir = tmp_path / "empty" if lagging else live.state_dir("1")
        error = live.wait_for_end(live.start_stream("1", "--until-end", state_dir=state_dir), code=1)
        assert "search-events" in error
        assert "a replica without" in error
        assert "--topic-prefix" in error
        assert read_written_examples(live.examples()) == before
    finally:
        live.kill_all()
