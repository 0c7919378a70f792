"""`prectr export`: the events of a topic as files, up to where the topic ended, and loaded again from them."""

import json
import stat
import subprocess
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from kafka import TopicPartition

from prectr.state.errors import InputError, StateError, UsageError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.event_export import export_events
from testkit.command import prectr, write_log
from testkit.oracle.contract import partition_of
from tests.kafka.io.test_dlq import given, read
from tests.kafka.live import Live
from tests.kit.stages.events import T, click, page

PRETTY = b'{\n  "type": "click",\r\n  "request_id": "r1", "user_id": "ada", "item_id": "i1", "ts": 1700000000005}'


def exported(
    live: Live, out: Path, *flags: str | Path, code: int = 0
) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    result = live.folder / "export.json"
    done = prectr("export", *given(live, "--out", out, "--json", result, *flags))
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(result.read_bytes()), done


def lines_of(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.iterdir()) for line in path.read_bytes().splitlines()]


def delete_records(live: Live, partition: int, before: int) -> None:
    at = TopicPartition(f"{live.prefix}search-events", partition)
    Connection(live.bootstrap).call_admin(lambda admin: admin.delete_records({at: before}))


def test_every_event_is_a_line_of_its_partitions_file_and_only_the_user_can_read_it(live: Live) -> None:
    live.create()
    events = [page(f"r{n}", f"u{n}", T + n) for n in range(500)] + [b"{", b"\xff\x00"]
    live.load(write_log(live.folder / "log.jsonl", events))
    producer = Connection(live.bootstrap).producer()
    for value in (PRETTY, None):
        producer.send(f"{live.prefix}search-events", value=value, key=b"ada", partition=1)
    producer.close()

    out = live.folder / "events"
    result, done = exported(live, out)
    assert (result["events"], result["removed"], result["open"]) == (504, 0, 0)
    assert f"{out}: 504 events of {live.prefix}search-events" in done.stdout
    assert Counter(lines_of(out)) == Counter([*events, PRETTY.replace(b"\n", b" ").replace(b"\r", b" "), b""])
    for number, path in enumerate(sorted(out.iterdir())):
        lines = path.read_bytes().splitlines()
        assert path.name == f"partition-{number}-offsets-0-to-{len(lines)}.jsonl"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert not (live.folder / "events.part").exists()


def test_an_export_ends_while_a_producer_writes_and_the_next_one_has_what_came_after_it(live: Live) -> None:
    live.create()
    sent, ended = [page("r0", "u0", T)], Event()
    live.load(write_log(live.folder / "log.jsonl", sent))

    def produce() -> None:
        producer = Connection(live.bootstrap).producer()
        while not ended.is_set():
            user = f"u{len(sent)}"
            event = page(f"r{len(sent)}", user, T + len(sent))
            partition = partition_of(user, live.partitions)
            producer.send(f"{live.prefix}search-events", value=event, key=user.encode(), partition=partition)
            sent.append(event)
            ended.wait(0.002)
        producer.close()

    thread = Thread(target=produce)
    thread.start()
    try:
        first, _ = exported(live, live.folder / "first")
    finally:
        ended.set()
        thread.join()
    second, _ = exported(live, live.folder / "second", "--after", live.folder / "first")
    third, _ = exported(live, live.folder / "third", "--after", live.folder / "second")
    assert (first["open"], second["events"] > 0, third["events"]) == (0, True, 0)
    assert Counter([*lines_of(live.folder / "first"), *lines_of(live.folder / "second")]) == Counter(sent)


def test_loaded_into_a_topic_with_other_partitions_the_events_are_in_order_of_time(live: Live) -> None:
    live.create()
    # Of one user, in different partitions: as after partitions were added.
    events = [page("r1", "ada", T), click("r1", "ada", T + 1), page("r2", "ada", T + 2), click("r2", "ada", T + 3)]
    producer = Connection(live.bootstrap).producer()
    for number, event in enumerate(events):
        producer.send(f"{live.prefix}search-events", value=event, key=b"ada", partition=number % 2)
    producer.close()
    out = live.folder / "events"
    exported(live, out)
    second = Live(live.bootstrap, f"{live.prefix}second.", live.folder, partitions=5)
    second.create()
    assert prectr("load", out, *given(second)).returncode == 0
    found = read(second, "search-events")
    assert [record.value for record in found] == events
    assert {record.partition for record in found} == {partition_of("ada", 5)}


def test_records_behind_an_open_transaction_are_counted_and_written_after_it(live: Live) -> None:
    live.create()
    live.load(write_log(live.folder / "log.jsonl", [page("r1", "ada", T)]))
    producer = Connection(live.bootstrap).producer(transactional_id=f"{live.prefix}other")
    producer.init_transactions()
    producer.begin_transaction()
    inside = click("r1", "ada", T + 1)
    producer.send(f"{live.prefix}search-events", value=inside, key=b"ada", partition=0).get(10)
    first, done = exported(live, live.folder / "first")
    assert (first["events"], first["open"]) == (1, 1)
    assert "not in it: 1 newer records, behind a transaction that is open" in done.stdout
    producer.commit_transaction()
    producer.close()
    second, _ = exported(live, live.folder / "second", "--after", live.folder / "first")
    assert (second["events"], second["open"], lines_of(live.folder / "second")) == (1, 0, [inside])


def test_what_retention_removed_is_counted_and_is_an_error_after_an_earlier_export(live: Live) -> None:
    live.create()
    connection, topics = Connection(live.bootstrap), Topics(live.prefix)
    user = next(name for name in ("u0", "u1", "u2", "u3", "u4", "u5") if partition_of(name, live.partitions) == 0)
    live.load(write_log(live.folder / "log.jsonl", [page(f"r{n}", user, T + n) for n in range(10)]))
    exported(live, live.folder / "first")
    live.load(write_log(live.folder / "log.jsonl", [page(f"s{n}", user, T + n) for n in range(10)]))
    delete_records(live, 0, 12)
    with pytest.raises(StateError, match=r"partition 0: offset 10 is the one after .*holds 12 to before 20"):
        export_events(
            connection, topics, live.folder / "second", lambda _done, _total: None, after=live.folder / "first"
        )
    assert not (live.folder / "second").exists()
    result, done = exported(live, live.folder / "third")
    assert (result["events"], result["removed"]) == (8, 12)
    assert "not in it: 12 older records, which retention has removed" in done.stdout


def test_a_folder_that_exists_or_that_is_no_export_is_refused(live: Live) -> None:
    live.create()
    connection, topics = Connection(live.bootstrap), Topics(live.prefix)
    with pytest.raises(UsageError, match="exists: name a folder that does not"):
        export_events(connection, topics, live.folder, lambda _done, _total: None)
    with pytest.raises(InputError, match="is no folder that `prectr export` has written"):
        export_events(connection, topics, live.folder / "out", lambda _done, _total: None, after=live.folder)
    assert not (live.folder / "out").exists()
