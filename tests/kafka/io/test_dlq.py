"""Dead letters on a real broker: listed, shown, corrected and retried, each once."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.retry import ByReason, retry_dead_letters
from testkit.command import environment, prectr, write_log
from testkit.oracle.contract import partition_of
from tests.kafka.live import Live
from tests.kit.stages.events import T, click, page

HEADERS = [("trace", b"\x00\xff"), ("reason", b"theirs")]
BROKEN = b'{"type":"click","request_id":"r2","user_id":"secret-user"}'


def given(live: Live, *flags: str | Path) -> list[str | Path]:
    return [*flags, "--bootstrap", live.bootstrap, "--topic-prefix", live.prefix]


def dead_letter(live: Live, records: Sequence[tuple[str, bytes]], partition: int = 0) -> None:
    """Write dead letters as the stream does: reason and source first, then the record's own headers."""
    producer = Connection(live.bootstrap).producer()
    for number, (reason, value) in enumerate(records):
        ours = {"reason": reason, "detail": f"about {number}", "topic": "events", "partition": "2", "offset": "40"}
        headers = [*((name, text.encode()) for name, text in ours.items()), *HEADERS]
        producer.send(f"{live.prefix}dead-letters", value=value, key=b"old", partition=partition, headers=headers)
    producer.close()


def read(live: Live, topic: str, isolation: str = "read_committed") -> list[Any]:
    """What is committed in a topic."""
    connection = Connection(live.bootstrap)
    name = f"{live.prefix}{topic}"
    ends = {TopicPartition(name, number): end for number, end in enumerate(fetch_end_offsets(connection, name))}
    consumer = connection.consumer(group_id=None)
    consumer.assign(list(ends))
    found: list[Any] = []
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        found += [record for records in consumer.poll(timeout_ms=200).values() for record in records]
    consumer.close()
    return found


def listed(live: Live, *flags: str) -> dict[str, Any]:
    out = live.folder / "list.json"
    done = prectr("dlq", "list", *given(live, "--json", out, *flags))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_bytes()))


def retried(live: Live, *flags: str | Path, code: int = 0) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    out = live.folder / "retry.json"
    done = prectr("dlq", "retry", *given(live, "--json", out, *flags))
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(out.read_bytes()), done


def test_a_list_counts_by_reason_and_source_and_shows_no_user(live: Live) -> None:
    live.create()
    dead_letter(live, [("missing_field", BROKEN), ("not_json", b"{"), ("missing_field", BROKEN)], partition=1)
    dead_letter(live, [("not_json", b"[[")])
    Connection(live.bootstrap).producer().send(f"{live.prefix}dead-letters", value=b"x", partition=2).get(10)

    found = listed(live)
    assert (found["dead_letters"], found["retried"]) == (5, 0)
    assert {(each["reason"], each["topic"], each["partition"]): each["dead_letters"] for each in found["counts"]} == {
        ("missing_field", "events", 2): 2,
        ("not_json", "events", 2): 2,
        ("no_reason", "", -1): 1,
    }
    assert [each["dead_letter"] for each in found["newest"]] == ["2:0", "0:0", "1:2", "1:1", "1:0"]
    assert found["newest"][2] | {"timestamp": 0} == {
        "dead_letter": "1:2",
        "reason": "missing_field",
        "topic": "events",
        "partition": 2,
        "offset": 40,
        "size": len(BROKEN),
        "timestamp": 0,
        "retried": False,
    }
    some = listed(live, "--reason", "not_json", "--limit", "1")
    assert (some["dead_letters"], [each["dead_letter"] for each in some["newest"]]) == (2, ["0:0"])
    shown = prectr("dlq", "list", *given(live)).stdout
    assert "missing_field" in shown
    assert "secret-user" not in shown
    narrow = prectr("dlq", "list", *given(live), COLUMNS="80").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert any(line.split()[:4] == ["1:2", "missing_field", "events", "2:40"] for line in narrow.splitlines()), narrow


def test_a_dead_letter_is_shown_with_its_headers_and_its_bytes_are_kept(live: Live) -> None:
    live.create()
    rubbish = b"\xff\x1b[2J\n" * 3
    dead_letter(live, [("missing_field", BROKEN), ("not_utf8", rubbish)])
    shown = prectr("dlq", "show", "0:0", *given(live)).stdout
    assert "missing_field: about 0" in shown
    assert "events partition 2 offset 40" in shown
    assert "header   trace: \\x00\\xff" in shown
    assert "header   reason: theirs" in shown
    assert '\n  "user_id": "secret-user"\n' in shown
    raw = live.folder / "raw"
    shown = prectr("dlq", "show", "0:1", *given(live, "--raw", raw)).stdout
    assert raw.read_bytes() == rubbish
    assert "\x1b" not in shown + prectr("dlq", "show", "0:1", *given(live)).stdout
    for ref, code, expected in (
        ("0:2", 1, "holds offsets 0 to 1"),
        ("1:0", 1, "partition 1 of"),
        ("9:0", 1, "has partitions 0 to 2"),
        ("0", 2, "is not of the form PARTITION:OFFSET"),
    ):
        done = prectr("dlq", "show", ref, *given(live))
        assert done.returncode == code
        assert expected in done.stderr


def test_dead_letters_are_retried_unchanged_once_and_those_still_invalid_stay(live: Live) -> None:
    live.create()
    good = [page("r1", "ada", T), click("r1", "ada", T + 5)]
    dead_letter(live, [("future_timestamp", good[0]), ("future_timestamp", BROKEN), ("other", good[1])])
    planned, done = retried(live, "--reason", "future_timestamp", "--dry-run", code=1)
    assert (planned["sent"], planned["rejected"]) == (1, 1)
    assert "0:0 would be sent to" in done.stdout
    assert read(live, "search-events") == []

    result, done = retried(live, "--reason", "future_timestamp", code=1)
    assert (result["sent"], result["already_retried"], result["rejected"]) == (1, 0, 1)
    assert result["rejected_items"][0]["source"] == "0:1"
    assert result["rejected_items"][0]["reason"] == "missing_field"
    assert "0:1 not sent: missing_field" in done.stdout
    result, _ = retried(live, "--reason", "future_timestamp", code=1)
    assert (result["sent"], result["already_retried"]) == (0, 1)
    result, _ = retried(live, "0:2", "0:0", "0:2")
    assert (result["sent"], result["already_retried"]) == (1, 1)

    events = read(live, "search-events")
    assert sorted(event.value for event in events) == sorted(good)
    for event in events:
        assert event.key == b"ada"
        assert event.partition == partition_of("ada", live.partitions)
        assert event.headers == HEADERS
    found = listed(live)
    assert (found["dead_letters"], found["retried"]) == (3, 2)
    assert {each["dead_letter"]: each["retried"] for each in found["newest"]} == {
        "0:0": True,
        "0:1": False,
        "0:2": True,
    }
    result, _ = retried(live, "0:3", "7:0", code=1)
    assert [each["reason"] for each in result["rejected_items"]] == ["not_found", "not_found"]


def test_dead_letters_are_exported_corrected_and_retried_once(live: Live) -> None:
    live.create()
    dead_letter(
        live, [("missing_field", BROKEN), ("not_json", b'{"a'), ("not_utf8", b"\xff"), ("sent", page("r", "u", T))]
    )
    retried(live, "0:3")
    out = live.folder / "dead-letters.jsonl"
    done = prectr("dlq", "export", *given(live, "--out", out))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_bytes().splitlines()]
    about = [
        {"dead_letter": f"0:{n}", "reason": reason, "detail": f"about {n}"}
        for n, (reason) in enumerate(("missing_field", "not_json", "not_utf8"))
    ]
    assert lines == [
        about[0] | {"event": json.loads(BROKEN)},
        about[1] | {"event": None, "text": '{"a'},
        about[2] | {"event": None, "base64": "/w=="},
    ]
    again = prectr("dlq", "export", *given(live, "--out", out))
    assert again.returncode == 2
    assert "may contain corrections" in again.stderr

    # One is corrected, one unchanged, one gets an event of another user; and a line names no dead letter.
    lines[0]["event"] |= {"item_id": "a", "ts": T}
    lines[2]["event"] = json.loads(page("r3", "bob", T))
    own = page("r4", "eve", T)
    out.write_bytes(b"\n".join([*(json.dumps(line).encode() for line in lines), b"", own, b'{"event": null}', b""]))
    result, _ = retried(live, "--file", out, code=1)
    assert (result["sent"], result["rejected"]) == (3, 2)
    assert [each["source"] for each in result["rejected_items"]] == [f"{out} line 2 (dead letter 0:1)", f"{out} line 6"]
    result, _ = retried(live, "--file", out, code=1)
    assert (result["sent"], result["already_retried"]) == (1, 2)
    events = Counter((event.key, json.loads(event.value)["request_id"]) for event in read(live, "search-events"))
    assert events == {(b"u", "r"): 1, (b"secret-user", "r2"): 1, (b"bob", "r3"): 1, (b"eve", "r4"): 2}

    out.write_text('{"dead_letter": "0-1", "event": {}}\n')
    done = prectr("dlq", "retry", *given(live, "--file", out))
    assert (done.returncode, "line 1: dead letter '0-1'" in done.stderr) == (1, True)
    done = prectr("dlq", "retry", *given(live, "--file", live.folder / "none"))
    assert (done.returncode, "cannot be read" in done.stderr) == (1, True)
    assert prectr("dlq", "retry", *given(live, "0:1", "--reason", "not_json")).returncode == 2


@pytest.mark.parametrize("point", ["retry_before_commit", "retry_after_commit"])
def test_a_killed_retry_sends_each_dead_letter_once_when_repeated(point: str, live: Live) -> None:
    live.create()
    users = [f"u{number}" for number in range(250)]
    dead_letter(live, [("gone", page(user, user, T)) for user in users])
    command = [
        sys.executable,
        "-m",
        "tests.kafka.crashing",
        point,
        "2",
        "dlq",
        "retry",
        *given(live, "--reason", "gone"),
    ]
    killed = subprocess.run([str(part) for part in command], env=environment(), capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    result, _ = retried(live, "--reason", "gone")
    assert result["already_retried"] == (100 if point == "retry_before_commit" else 200)
    assert Counter(event.key.decode() for event in read(live, "search-events")) == dict.fromkeys(users, 1)


def test_of_two_concurrent_retries_the_second_continues_and_each_dead_letter_is_sent_once(live: Live) -> None:
    live.create()
    users = [f"u{number}" for number in range(250)]
    dead_letter(live, [("gone", page(user, user, T)) for user in users])
    others: list[dict[str, Any]] = []

    def meanwhile() -> bool:
        if not others:
            others.append(retried(live, "--reason", "gone")[0])
        return False

    with pytest.raises(PrectrError, match="another retry of dead letters has started"):
        retry_dead_letters(
            Connection(live.bootstrap), Topics(live.prefix), ByReason("gone"), lambda done, total: None, stop=meanwhile
        )
    assert (others[0]["already_retried"], others[0]["sent"]) == (100, 150)
    assert Counter(event.key.decode() for event in read(live, "search-events")) == dict.fromkeys(users, 1)


def test_dead_letters_of_an_open_transaction_are_not_waited_for_and_those_of_an_aborted_one_ignored(live: Live) -> None:
    live.create()
    dead_letter(live, [("first", b"{")])
    producer = Connection(live.bootstrap).producer(transactional_id=f"{live.prefix}open")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(f"{live.prefix}dead-letters", value=b"never", partition=0, headers=[("reason", b"open")])
    producer.flush()
    assert listed(live)["dead_letters"] == 1
    producer.abort_transaction()
    producer.close()
    assert listed(live)["dead_letters"] == 1
    done = prectr("dlq", "show", "0:1", *given(live))
    assert (done.returncode, "of a transaction that was aborted" in done.stderr) == (1, True)


def test_events_whose_window_has_passed_are_told_before_they_are_sent(live: Live) -> None:
    live.create()
    day = 86_400_000
    live.load(write_log(live.folder / "log.jsonl", [page(f"r{n}", f"u{n}", T + n * 1000) for n in range(600)]))
    done = prectr("stream", *given(live, "--state-dir", live.folder / "state", "--until-end"))
    assert done.returncode == 0, done.stderr
    # Ten minutes long, so that all partitions have come further than the window of two minutes.
    dead_letter(live, [("not_json", page("old", "u1", T + 1)), ("not_json", page("new", "u2", T + day))])

    dry, done = retried(live, "--reason", "not_json", "--dry-run")
    assert (dry["sent"], dry["late"]) == (2, 1)
    assert "1 of these events are late: their attribution window has passed" in done.stdout
    (live.folder / "long.toml").write_text('attribution_window = "1h"\n')
    assert retried(live, "--reason", "not_json", "--dry-run", "--config", live.folder / "long.toml")[0]["late"] == 0
    assert retried(live, "--reason", "not_json", "--yes")[0]["late"] == 1
