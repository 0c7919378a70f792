"""The fields that an examples file does not have, against the oracle: histories, decayed counts, recent clicks."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from prectr.stream.config import PipelineConfig
from prectr.stream.records import Example, decode_history, decode_query_clicks
from prectr.stream.replay.runner import Replay
from testkit.command import write_log
from testkit.oracle.oracle import expected_replay
from tests.oracle.world import Disorder, make_world


class Kept:
    """A sink that keeps every example."""

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        self.examples.extend(examples)

    def flush(self) -> None: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


def replayed_in_process(lines: list[bytes], folder: Path, partitions: int) -> list[Example]:
    kept = Kept()
    log = write_log(folder / "events.jsonl", lines)
    run = Replay(
        [str(log)],
        folder / "run",
        PipelineConfig(partitions=partitions),
        config={},
        sinks={"kept": kept},
        label=lambda _query, _page: None,
    )
    run.run(flush=True)
    run.close()
    return kept.examples


@pytest.mark.parametrize(("seed", "partitions"), [(31, 1), (32, 3), (33, 4)])
def test_snapshots_are_as_of_the_page(seed: int, partitions: int, tmp_path: Path) -> None:
    """Few users and queries, so that histories and recent clicks overflow; some pages are hours late."""
    world = make_world(seed, Disorder(pages=4000, users=25, gap=15.0, late=0.05))
    expected = expected_replay(world, partitions, snapshots=True)
    found = replayed_in_process(world, tmp_path, partitions)
    assert len(found) == len(expected["examples"])
    assert max(len(snapshot["history"]) for snapshot in expected["snapshots"]) == 50
    assert max(len(snapshot["query_clicks"]) for snapshot in expected["snapshots"]) == 64
    for ours, page, snapshot in zip(found, expected["examples"], expected["snapshots"], strict=True):
        assert (ours.request_id, ours.user_id, ours.ts) == (page["request_id"], page["user_id"], page["ts"])
        history = [(click.ts, click.request_id, click.item_id) for click in decode_history(ours.history)]
        assert history == snapshot["history"]
        clicks = [(click.ts, click.item_id, click.level) for click in decode_query_clicks(ours.query_clicks)]
        assert clicks == snapshot["query_clicks"]
        for sums, by_level in zip(ours.query_decayed, snapshot["query_decayed"], strict=True):
            decayed = [by_level[level][kind] for kind in (0, 1) for level in "1234"]
            assert list(sums) == pytest.approx(decayed, rel=1e-9)
