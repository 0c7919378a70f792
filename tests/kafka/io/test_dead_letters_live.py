"""Events that the stream rejects, from the log to the dead letters and back."""

import json
import random
from pathlib import Path
from typing import Any

from prectr.stream.kafka.client.client import Connection
from testkit.command import prectr
from testkit.oracle.contract import partition_of
from tests.kafka.io.test_dlq import given, listed, read, retried
from tests.kafka.live import Live
from tests.kit.stages.events import T, page

LIMIT = 8 << 20


def test_a_record_as_large_as_the_topic_takes_is_a_dead_letter_whole_and_goes_back_corrected(live: Live) -> None:
    live.create()
    topic = f"{live.prefix}search-events"
    home = partition_of("ada", live.partitions)
    noise = random.Random(7)
    large = noise.randbytes(LIMIT - 2_000)
    # Squeezed, it is small enough for the topic; as it is, it is larger than any topic of ours takes.
    squeezed = b'{"type": "' + b"x" * (3 * LIMIT)
    producer = Connection(live.bootstrap).producer()
    for value in (page("r1", "ada", T), large, squeezed, b'{"type":"click"}'):
        producer.send(topic, value=value, key=b"ada", partition=home, headers=[("trace", b"7")]).get(30)
    producer.close()
    live.stream(1)

    letters = read(live, "dead-letters")
    assert sorted(len(letter.value) for letter in letters) == sorted(map(len, (large, squeezed, b'{"type":"click"}')))
    by_offset: dict[bytes, Any] = {dict(letter.headers[:5])["offset"]: letter for letter in letters}
    assert by_offset[b"1"].value == large
    assert by_offset[b"2"].value == squeezed
    for offset, reason in ((b"1", b"too_large"), (b"2", b"too_large"), (b"3", b"missing_field")):
        letter = by_offset[offset]
        assert [name for name, _ in letter.headers[:5]] == ["reason", "detail", "topic", "partition", "offset"]
        ours = dict(letter.headers[:5])
        assert (ours["reason"], ours["topic"], ours["partition"]) == (reason, topic.encode(), str(home).encode())
        assert letter.key == b"ada"
    assert {each["reason"]: each["dead_letters"] for each in listed(live)["counts"]} == {
        "too_large": 2,
        "missing_field": 1,
    }

    where = f"{by_offset[b'1'].partition}:{by_offset[b'1'].offset}"
    raw = live.folder / "raw"
    assert prectr("dlq", "show", where, *given(live, "--raw", raw)).returncode == 0
    assert raw.read_bytes() == large
    retried(live, "--reason", "too_large", code=1)

    out = live.folder / "letters.jsonl"
    assert prectr("dlq", "export", *given(live, "--reason", "missing_field", "--out", out)).returncode == 0
    line = json.loads(out.read_bytes())
    line["event"] |= {"request_id": "r1", "user_id": "ada", "item_id": "a", "ts": T + 1}
    _write(out, line)
    result, _ = retried(live, "--file", out)
    assert result["sent"] == 1
    # The click is joined: it came back before its page had closed.
    live.stream(1, "--flush")
    assert live.train_and_read("--flush").outcomes["clicks"]["joined"] == 1


def _write(path: Path, line: dict[str, Any]) -> None:
    path.write_text(json.dumps(line) + "\n")
