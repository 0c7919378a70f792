"""The oracle itself, on logs small enough to work out by hand."""

import json
from typing import Any

import pytest

from testkit.oracle.contract import murmur2, normalise, read_line
from testkit.oracle.oracle import HOUR, expected_replay

T = 1_700_000_000_000


def page(request: str, user: str, ts: int, items: str = "ab", query: str = "q", **more: Any) -> bytes:
    shown = [{"item_id": item, "relevance": index % 4 + 1} for index, item in enumerate(items)]
    event = {"type": "impression", "request_id": request, "user_id": user, "query": query, "ts": ts, "items": shown}
    return json.dumps(event | more).encode()


def click(request: str, user: str, item: str, ts: int) -> bytes:
    return json.dumps({"type": "click", "request_id": request, "user_id": user, "item_id": item, "ts": ts}).encode()


def clicks(result: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in result["outcomes"]["clicks"].items() if count}


def pages(result: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in result["outcomes"]["pages"].items() if count}


@pytest.mark.parametrize(
    ("key", "expected"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("abc", 479470107)],
)
def test_murmur2_matches_the_vectors_of_kafkas_own_test(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected % (1 << 32)


def test_query_is_folded_composed_and_collapsed() -> None:
    assert normalise("  ﬁne　Ｓhoes\tSTRAẞE ") == "fine shoes strasse"


def test_click_kinds() -> None:
    log = [
        page("r1", "u1", T),
        click("r1", "u1", "a", T + 1000),
        click("r1", "u1", "a", T + 2000),  # again: duplicate
        click("r1", "u1", "z", T + 2000),  # not on the page: foreign
        click("r1", "u2", "a", T + 2000),  # another user's page: becomes an orphan
        click("r1", "u1", "b", T + 120_001),  # beyond the window: late
        page("r2", "u1", T + 125_000),  # watermark T + 120 s: r1 closes
        click("r1", "u1", "b", T + 3000),  # closed: late
        click("r3", "u1", "b", T + 126_000),  # waits for its page
    ]
    result = expected_replay(log, 1, flush=False, settled_at=T)
    assert clicks(result) == {"in": 7, "joined": 1, "duplicate": 1, "foreign": 1, "late": 2, "waiting": 2}
    assert pages(result) == {"in": 2, "emitted": 1, "open": 1}
    assert [item["click"] for item in result["examples"][0]["items"]] == [1, 0]
    flushed = expected_replay(log, 1, settled_at=T)
    assert clicks(flushed)["orphan"] == 2
    assert flushed["examples"][1]["user_activity"] == 1
    assert flushed["examples"][1]["user_stats"] == {"1": [1, 1], "2": [1, 0], "3": [0, 0], "4": [0, 0]}
    assert flushed["examples"][1]["query_stats"] == flushed["examples"][1]["user_stats"]


def test_page_sees_only_pages_closed_by_its_ts() -> None:
    log = [page("r1", "u1", T), page("r2", "u1", T + 119_999), page("r3", "u2", T + 120_000)]
    stats = [example["query_stats"]["1"] for example in expected_replay(log, 1)["examples"]]
    assert stats == [[0, 0], [0, 0], [1, 0]]


def test_counts_halve_with_every_half_life() -> None:
    day = 24 * HOUR
    log = [page("r1", "u1", T), click("r1", "u1", "b", T + 1), page("r2", "u2", T + 120_000 + day)]
    snapshot = expected_replay(log, 1, snapshots=True)["snapshots"][1]
    six_hours, one_day, seven_days = snapshot["query_decayed"]
    assert six_hours == {"1": [0.0625, 0.0], "2": [0.0625, 0.0625], "3": [0.0, 0.0], "4": [0.0, 0.0]}
    assert one_day == {"1": [0.5, 0.0], "2": [0.5, 0.5], "3": [0.0, 0.0], "4": [0.0, 0.0]}
    assert seven_days["2"] == pytest.approx([0.5 ** (1 / 7)] * 2)
    assert snapshot["query_clicks"] == [(T + 1, "b", 2)]


def test_a_click_before_its_page_joins_when_the_page_arrives() -> None:
    result = expected_replay([click("r1", "u1", "b", T), page("r1", "u1", T - 1)], 3)
    assert clicks(result) == {"in": 1, "joined": 1}


def test_late_page_closes_one_ms_after_the_watermark() -> None:
    log = [
        page("r1", "u1", T + HOUR),
        page("r2", "u1", T),  # close time = watermark + 1
        click("r2", "u1", "a", T + 5),
        click("r9", "u1", "a", T + HOUR + 1),  # the watermark advances by 1 ms: r2 closes
        click("r2", "u1", "b", T + 6),
    ]
    assert clicks(expected_replay(log, 1, settled_at=T)) == {"in": 3, "joined": 1, "late": 1, "orphan": 1}
    assert [example["request_id"] for example in expected_replay(log, 1, settled_at=T)["examples"]] == ["r2", "r1"]


def test_a_page_five_hours_ahead_is_a_dead_letter_after_one_hour() -> None:
    jump = page("bad", "u1", T + 5 * HOUR)
    log = [page("r1", "u1", T), jump, page("r2", "u2", T + HOUR - 1)]
    assert pages(expected_replay(log, 1, flush=False, settled_at=T)) == {"in": 3, "emitted": 1, "open": 2}
    result = expected_replay([*log, page("r3", "u2", T + HOUR)], 1, settled_at=T)
    assert pages(result) == {"in": 4, "emitted": 3, "dead_letter": 1}
    assert result["dead"] == [jump]


def test_a_quiet_night_passes_with_the_second_user_or_an_hour_of_the_only_one() -> None:
    log = [page("r1", "u1", T), page("r2", "u1", T + 9 * HOUR), page("r3", "u2", T + 9 * HOUR + 5_000)]
    assert pages(expected_replay(log, 1, flush=False, settled_at=T)) == {"in": 3, "emitted": 1, "open": 2}
    alone = [page("r1", "u1", T), page("r2", "u1", T + 9 * HOUR), page("r3", "u1", T + 9 * HOUR + 1)]
    assert pages(expected_replay(alone, 1, flush=False, settled_at=T)) == {"in": 3, "open": 3}
    later = [*alone, page("r4", "u1", T + 10 * HOUR)]
    assert pages(expected_replay(later, 1, flush=False, settled_at=T)) == {"in": 4, "emitted": 3, "open": 1}


def test_duplicate_page_is_known_by_its_decoded_fields() -> None:
    first = page("r1", "u1", T)
    spelled = json.loads(first)
    for place, item in enumerate(spelled["items"], 1):
        item["position"] = place
    spelled["unknown"] = [1]
    log = [first, json.dumps(spelled).encode(), page("r1", "u1", T, query="other"), page("r1", "u2", T)]
    assert pages(expected_replay(log, 1)) == {"in": 4, "emitted": 2, "duplicate": 1, "dead_letter": 1}


def test_history_holds_the_last_fifty_and_counts_the_rest() -> None:
    log = []
    for i in range(60):
        log += [page(f"r{i}", "u1", T + i * 200_000), click(f"r{i}", "u1", "a", T + i * 200_000 + 1)]
    log.append(page("last", "u1", T + 60 * 200_000))
    result = expected_replay(log, 1, snapshots=True)
    assert result["examples"][-1]["user_activity"] == 60
    assert [c[1] for c in result["snapshots"][-1]["history"]] == [f"r{i}" for i in range(10, 60)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"", "unreadable"),
        (b"[]", "unreadable"),
        (b'{"type": "click"}', "click"),
        (b'{"type": "impression", "request_id": 1}', "impression"),
        (b'{"type": "other"}', "unreadable"),
        (page("r", "u", T).replace(b'"items"', b'"results"'), "impression"),
        (page("r", "u", T // 1000), "impression"),
        (page("r", "u", T, items="x" * 201), "impression"),
        (page("r", "é" * 129, T), "impression"),
        (page("r", "u", T)[:-1], "unreadable"),
        (page("r", "u", T).replace(b"q", b"\xff"), "unreadable"),
    ],
)
def test_invalid_events(line: bytes, kind: str) -> None:
    assert read_line(line) == (kind, None)
