"""Sinks and offsets are one checkpoint: a run that is interrupted anywhere consumes each example once."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import pytest
from kafka import TopicPartition

from prectr.state.errors import CheckpointError, Remedy, StateError, UsageError
from prectr.stream.coordination.process_group import ProcessGroup
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io import example_reader
from prectr.stream.kafka.io.sink_runner import LiveSinkRunner, write_examples
from prectr.stream.ordering.frames import END_OF_LOG, SourceProgress, encode_frames
from prectr.stream.records import Example, encode_record
from prectr.stream.sinks.example_line import NO_SCORES, example_line
from prectr.stream.sinks.run_digest import RunDigest
from prectr.stream.sinks.written_examples import read_examples
from tests.kit.kafka.broker import FakeBroker
from tests.kit.kafka.clients import FakeConnection
from tests.kit.models.examples import random_examples
from tests.kit.models.threads import ThreadExchange
from tests.stream.ordering.test_synchronized_steps import ThreadPeer

TOPICS = Topics()
PARTITIONS = 2
PAGES = 60
CONFIG = {"model": "lr", "seed": "1"}


class RecordingSink:
    """Keeps what it consumed, over restarts."""

    def __init__(self) -> None:
        self.consumed: list[str] = []
        self.flushed = False

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        self.consumed += [example.request_id for example in examples]

    def flush(self) -> None:
        self.flushed = True

    def save(self, folder: Path) -> None:
        (folder / "consumed").write_bytes(msgspec.json.encode(self.consumed))

    def load(self, folder: Path) -> None:
        self.consumed = msgspec.json.decode((folder / "consumed").read_bytes())


class Written:
    """Examples on `training-examples`, a frame at a time, alternating between its partitions."""

    def __init__(self, broker: FakeBroker) -> None:
        self.examples = random_examples(PAGES)
        self._broker = broker
        self._sequences = [0] * PARTITIONS
        self._written = [0] * PARTITIONS

    def write(
        self, until: int, *, ends: dict[int, int] | None = None, partitions: Sequence[int] = range(PARTITIONS)
    ) -> None:
        """Write the examples up to a number, with a watermark at the last of them."""
        watermark = self.examples[until - 1].closes_at
        for partition in partitions:
            numbers = range(self._written[partition], until)
            self._written[partition] = until
            records = [encode_record(self.examples[n]) for n in numbers if n % PARTITIONS == partition]
            progress = SourceProgress(watermark=watermark, reached_end_offsets=ends or {})
            frames = encode_frames(partition, self._sequences[partition], records, progress)
            self._sequences[partition] += len(frames)
            self._broker.append(TOPICS.examples, partition, *frames)

    @property
    def ids(self) -> list[str]:
        return [example.request_id for example in self.examples]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_reader, "_POLL_MS", 0)
    monkeypatch.setattr(example_reader, "_MAX_BATCH_EXAMPLES", 7)


@pytest.fixture
def broker() -> FakeBroker:
    broker = FakeBroker()
    broker.create(TOPICS, PARTITIONS)
    return broker


@pytest.fixture
def written(broker: FakeBroker) -> Written:
    return Written(broker)


def runner(
    broker: FakeBroker,
    run_dir: Path,
    sink: RecordingSink,
    config: dict[str, str] | None = None,
    interval: float = 1e9,
    group: ProcessGroup | None = None,
) -> LiveSinkRunner:
    return LiveSinkRunner(
        FakeConnection("fake:9092", broker=broker),
        TOPICS,
        run_dir,
        config=config or CONFIG,
        sinks={"recording": sink},
        checkpoint_interval=interval,
        process_group=group,
    )


class Crash(Exception):
    """Ends a run without a last checkpoint."""


def run_until(runner: LiveSinkRunner, sink: RecordingSink, count: int, *, crash: bool = False) -> None:
    """Run until the sink has consumed so many examples, then stop or crash."""

    def stop() -> bool:
        if len(sink.consumed) >= count and crash:
            raise Crash
        return len(sink.consumed) >= count

    runner.run(stop=stop)


def digest_of(examples: Sequence[Example]) -> str:
    digest = RunDigest()
    digest.add(examples)
    return str(digest.state())


def test_the_sinks_consume_all_partitions_in_event_time_order(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(PAGES)
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    run_until(run, sink, PAGES)
    run.close()
    assert sink.consumed == written.ids
    assert str(run.digest.state()) == digest_of(written.examples)


@pytest.mark.parametrize("stopped_at", [1, 20, PAGES])
def test_a_stopped_run_resumes_after_the_last_example_that_it_consumed(
    stopped_at: int, broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(30)
    written.write(PAGES)
    first = RecordingSink()
    run = runner(broker, tmp_path, first)
    run_until(run, first, stopped_at)
    run.close()
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    assert sink.consumed == first.consumed
    run_until(run, sink, PAGES)
    run.close()
    assert sink.consumed == written.ids
    assert str(run.digest.state()) == digest_of(written.examples)


def test_buffered_examples_are_in_the_checkpoint(broker: FakeBroker, written: Written, tmp_path: Path) -> None:
    written.write(20)
    written.write(PAGES, partitions=[1])
    first = RecordingSink()
    run = runner(broker, tmp_path, first)
    run_until(run, first, 20)
    run.run(stop=iter([False, False, True]).__next__)
    run.close()
    assert first.consumed == written.ids[:20]
    written.write(PAGES, partitions=[0])
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    run_until(run, sink, PAGES)
    run.close()
    assert sink.consumed == written.ids


def test_a_crashed_run_repeats_what_came_after_its_last_checkpoint(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(PAGES)
    first = RecordingSink()
    run = runner(broker, tmp_path, first)
    run_until(run, first, 20)
    with pytest.raises(Crash):
        run_until(run, first, 40, crash=True)
    run.close()
    assert len(first.consumed) >= 40
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    assert 20 <= len(sink.consumed) < 40
    run_until(run, sink, PAGES)
    run.close()
    assert sink.consumed == written.ids


@pytest.mark.parametrize("damage", ["sinks/recording/consumed", "reader.msgpack"])
def test_after_a_damaged_checkpoint_the_one_before_it_takes_the_offsets_back_too(
    damage: str, broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(PAGES)
    first = RecordingSink()
    run = runner(broker, tmp_path, first)
    run_until(run, first, 20)
    run_until(run, first, 40)
    run.close()
    newest = tmp_path / "checkpoints" / "00000002"
    (newest / damage).write_bytes(b"[" * 100_000)
    with pytest.raises(CheckpointError, match=rf"delete the folder {newest} to resume from 00000001"):
        runner(broker, tmp_path, RecordingSink())
    assert newest.is_dir()
    shutil.rmtree(newest)
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    assert 20 <= len(sink.consumed) < 40
    run_until(run, sink, PAGES)
    run.close()
    assert sink.consumed == written.ids
    assert str(run.digest.state()) == digest_of(written.examples)


def test_a_checkpoint_is_written_after_each_interval_in_which_examples_came(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(PAGES)
    sink, seen = RecordingSink(), []
    run = runner(broker, tmp_path, sink, interval=0.0)
    run.run(stop=lambda: len(sink.consumed) >= PAGES, on_checkpoint=lambda each: seen.append(each.digest.pages))
    run.close()
    assert seen == sorted(set(seen))
    assert len(seen) >= PAGES // 7 - 1


def test_until_end_waits_for_every_source_to_report_its_end(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    broker.append(TOPICS.events, 0, b"event", b"event")
    written.write(40, ends={0: 2})
    sink, polls = RecordingSink(), []

    def progress(run: LiveSinkRunner) -> None:
        polls.append(len(sink.consumed))
        if len(polls) == 20:
            # The events' other partition is empty, and its task reports that.
            written.write(PAGES, ends={0: 2, 1: 0})

    run = runner(broker, tmp_path, sink)
    run.run(until_end=True, progress=progress)
    run.close()
    assert len(polls) > 20
    assert sink.consumed == written.ids
    assert not sink.flushed


def test_ranks_with_run_folders_of_their_own_resume_from_the_checkpoint_of_rank_0(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(30)
    written.write(PAGES)

    def train(peer: ThreadPeer, count: int) -> tuple[list[str], str]:
        sink = RecordingSink()
        run = runner(broker, tmp_path / f"rank-{peer.rank}", sink, group=peer)
        run_until(run, sink, count)
        run.close()
        return sink.consumed, str(run.digest.state())

    for count in (20, 40, PAGES):
        meeting = ThreadExchange(2)
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(partial(train, count=count), [ThreadPeer(rank, meeting) for rank in range(2)])
        assert first == second
    assert first == (written.ids, digest_of(written.examples))
    assert not (tmp_path / "rank-1").exists()


def test_a_run_does_not_begin_anew_where_rank_0_has_moved_to_another_machine(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(PAGES)
    sink = RecordingSink()
    run = runner(broker, tmp_path / "rank-1", sink)
    run_until(run, sink, 20)
    run.close()

    def refused(peer: ThreadPeer) -> str:
        with pytest.raises(CheckpointError) as raised:
            runner(broker, tmp_path / f"rank-{peer.rank}", RecordingSink(), group=peer)
        return str(raised.value)

    meeting = ThreadExchange(2)
    with ThreadPoolExecutor(2) as pool:
        for message in pool.map(refused, [ThreadPeer(rank, meeting) for rank in range(2)]):
            assert "rank 1 has checkpoint 00000001, newer than that of rank 0 (it has none)" in message
    assert not list((tmp_path / "rank-0").glob("checkpoints/*"))


def test_a_damaged_checkpoint_is_named_once_by_rank_0_and_without_flags_of_other_commands(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(PAGES)
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    run_until(run, sink, 20)
    run.close()
    manifest = tmp_path / "checkpoints" / "00000001" / "checkpoint.json"
    manifest.write_bytes(b"{")
    with pytest.raises(CheckpointError) as raised:
        runner(broker, tmp_path, RecordingSink())
    assert str(manifest) in str(raised.value)
    assert raised.value.remedies == (Remedy.EMPTY_RUN_DIR,)


def test_a_flushed_run_is_finished_for_good(broker: FakeBroker, written: Written, tmp_path: Path) -> None:
    written.write(PAGES, ends={0: END_OF_LOG, 1: END_OF_LOG})
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    run.run(until_end=True, flush=True)
    run.close()
    assert sink.flushed
    again = RecordingSink()
    run = runner(broker, tmp_path, again)
    assert run.finished
    run.run(until_end=True, flush=True)
    run.close()
    assert again.consumed == written.ids
    assert not again.flushed


def test_a_run_with_another_setting_is_rejected_by_name(broker: FakeBroker, written: Written, tmp_path: Path) -> None:
    written.write(10)
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    run_until(run, sink, 10)
    run.close()
    with pytest.raises(UsageError, match="seed"):
        runner(broker, tmp_path, RecordingSink(), {**CONFIG, "seed": "2"})
    runner(broker, tmp_path, RecordingSink()).close()


def test_a_log_that_no_longer_holds_the_next_frame_is_an_error(
    broker: FakeBroker, written: Written, tmp_path: Path
) -> None:
    written.write(10)
    sink = RecordingSink()
    run = runner(broker, tmp_path, sink)
    run_until(run, sink, 10)
    run.close()
    written.write(PAGES)
    log = broker.logs[TopicPartition(TOPICS.examples, 1)]
    log.start = log.end
    with pytest.raises(StateError, match=r"partition 1: offset 1 is next, but the log begins at 2"):
        runner(broker, tmp_path, RecordingSink())


def test_a_repeated_frame_is_an_error(broker: FakeBroker, written: Written, tmp_path: Path) -> None:
    written.write(10)
    (frame,) = broker.values(TOPICS.examples)[0]
    broker.append(TOPICS.examples, 0, frame)
    run = runner(broker, tmp_path, RecordingSink())
    with pytest.raises(StateError, match="found frame 0 instead of 1"):
        run.run(stop=lambda: False)
    run.close()


@pytest.mark.parametrize("name", ["examples.jsonl", "examples.parquet"])
def test_examples_are_written_up_to_the_end_of_the_topic(
    broker: FakeBroker, written: Written, tmp_path: Path, name: str
) -> None:
    written.write(PAGES)
    digest = write_examples(FakeConnection("fake:9092", broker=broker), TOPICS, tmp_path / name, until_end=True)
    assert str(digest.state()) == digest_of(written.examples)
    assert list(read_examples(tmp_path / name)) == [example_line(example, NO_SCORES) for example in written.examples]
    assert [page.request_id for page in read_examples(tmp_path / name)] == written.ids
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
