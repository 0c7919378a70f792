"""A seeded log with every kind of disorder that a click log can have.

Events are generated with true times, then given arrival times; the log is in the order of arrival. Disorder is
drawn independently for each event, so several kinds occur in the same page and user.
"""

import json
import math
import random
from dataclasses import dataclass
from typing import Any

from testkit.oracle.contract import partition_of
from tests.oracle.other_forms import in_another_form

Event = dict[str, Any]

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR = 365 * DAY
WINDOW = 120 * SECOND
START = 1_700_000_000_000

QUERIES = [
    "red shoes",
    "  Red   SHOES ",
    "ﬁne shoes",
    "fine shoes",
    "ＲＥＤ　ｓｈｏｅｓ",
    "große Schuhe",
    "GROSSE SCHUHE",
    "İstanbul",
    "cafe\u0301",
    "café",
    "",
    " \t ",
    "Ω ohm",
    "ŉ ǆ",
    "😀 shoes",
    "a\u2003b\u00a0c",
    "line\nbreak",
    'quo"te \\ back',
    "nul\x00query",
]
UNUSUAL_STRINGS = ["\n", "\x00", '"', "\\", "é", "\u2028", "\uffff", "😀", "\x7f", "ÿ", "/", "\u0430", "🏴󠁧󠁢"]
COLOURS = ["red", "blue", "café", "😀", "ß"]


@dataclass(frozen=True, kw_only=True)
class Disorder:
    """Probabilities of each kind of disorder per event, in a world of this many pages."""

    pages: int = 20_000
    users: int = 1500
    gap: float = 2.5
    """Mean seconds between pages."""
    late: float = 0.03
    """Arrives seconds to hours late."""
    beyond_window: float = 0.05
    before_page: float = 0.04
    foreign: float = 0.03
    another_users_click: float = 0.03
    unknown_page: float = 0.01
    duplicate_click: float = 0.05
    duplicate_page: float = 0.03
    conflict: float = 0.01
    malformed: float = 0.02
    other_forms: float = 0.05
    """Is written in another of the forms that are read, or stands beside an empty page or another action."""
    jump: float = 0.003
    shared_request: float = 0.01
    nights: int = 4
    """Number of gaps of more than an hour in all partitions."""
    confirmed_jumps: int = 3


def make_world(seed: int, disorder: Disorder | None = None) -> list[bytes]:
    """Return the lines of a log in the order of arrival, without their line ends."""
    return _World(random.Random(seed), disorder or Disorder()).lines()


class _World:
    def __init__(self, rng: random.Random, disorder: Disorder) -> None:
        self.rng = rng
        self.disorder = disorder
        self.arrivals: list[tuple[float, int, bytes]] = []
        self.users, self.weights = self._draw_users()
        self.users_seen: set[str] = set()
        self.now = START
        self.items = [f"i{n}" for n in range(60)] + [f"i{s}{n}" for n, s in enumerate(UNUSUAL_STRINGS)]
        self.queries = QUERIES + [f"query {n}" for n in range(40)]

    def lines(self) -> list[bytes]:
        nights = {self.rng.randrange(self.disorder.pages) for _ in range(self.disorder.nights)}
        parts = self.disorder.confirmed_jumps + 1
        jumps = {self.disorder.pages * part // parts: 2 * HOUR for part in range(1, parts)}
        if parts > 1:
            jumps[int(self.disorder.pages * 0.98)] = 20 * DAY
        for number in range(self.disorder.pages):
            self.now += int(self.rng.expovariate(1 / self.disorder.gap) * SECOND)
            if number in nights:
                self.now += int(self.rng.uniform(1.05, 9) * HOUR)
            if self.rng.random() < 0.1:
                self.now -= self.now % SECOND
            self._page(number)
            if number in jumps:
                self._confirmed_jump(number, jumps[number])
        self.arrivals.sort()
        return self._with_malformed(self._in_other_forms([line for _, _, line in self.arrivals]))

    # --- people -------------------------------------------------------------------------------------------

    def _draw_users(self) -> tuple[list[str], list[float]]:
        """Zipf over users; of eight partitions one has no user, one has one, one has two, and one is often idle."""
        users: list[str] = []
        remaining_users = {5: 1, 6: 2, 7: 0}
        number = 0
        while len(users) < self.disorder.users:
            name = f"u{number}" + (self.rng.choice(UNUSUAL_STRINGS) if self.rng.random() < 0.1 else "")
            number += 1
            partition = partition_of(name, 8)
            if remaining_users.get(partition, 1) > 0:
                remaining_users[partition] = remaining_users.get(partition, 1 << 30) - 1
                users.append(name)
        lonely_weights = {5: 0.02, 6: 0.01}
        weights = [(rank + 1) ** -0.9 for rank in range(len(users))]
        whole = sum(weights)
        for rank_index, name in enumerate(users):
            weights[rank_index] = lonely_weights.get(partition_of(name, 8), weights[rank_index] / whole)
        return users, weights

    def _draw_user(self) -> str:
        while True:
            user = self.rng.choices(self.users, self.weights)[0]
            if partition_of(user, 8) == 4 and self.now // (3 * HOUR) % 2:
                continue
            return user

    # --- one page and its clicks ----------------------------------------------------------------------------

    def _page(self, number: int) -> None:
        rng = self.rng
        user = self._draw_user()
        page = self._make_page(self._request_id(number), user, self.now)
        clock_offset = self._clock_offset(user)
        delay = self._delay()
        self._add_arrival(page | {"ts": page["ts"] + clock_offset}, self.now + delay)
        clock_far_off = abs(clock_offset) > 80 * DAY
        clicks = [] if clock_far_off else self._clicks(page)
        for click, when in clicks:
            click_offset = clock_offset if rng.random() < 0.9 else 0
            self._add_arrival(click | {"ts": max(0, click["ts"] + click_offset)}, when)
            if rng.random() < self.disorder.duplicate_click:
                duplicate = dict(click, ts=click["ts"] + click_offset + rng.choice([0, 1, 5000, 100_000]))
                self._add_arrival(duplicate, when + rng.choice([0, 2000, 60_000, 2 * HOUR]))
        self._add_duplicates(page | {"ts": page["ts"] + clock_offset}, delay)
        if rng.random() < self.disorder.shared_request:
            other = self._make_page(page["request_id"], self._draw_user(), self.now + rng.choice([0, 0, 1, 700]))
            if other["user_id"] != user:
                self._add_arrival(other, self.now + self._delay())
                for click, when in self._clicks(other):
                    self._add_arrival(click, when)

    def _add_duplicates(self, page: Event, delay: float) -> None:
        rng = self.rng
        if rng.random() < self.disorder.duplicate_page:
            repeated_at = (
                self.now + delay + rng.choice([0, 1000, 60_000, 10 * MINUTE, 50 * MINUTE, 70 * MINUTE, 3 * HOUR])
            )
            self._add_arrival(page, repeated_at)
        if rng.random() < self.disorder.conflict:
            conflicting = json.loads(json.dumps(page))
            change = rng.randrange(5)
            if change == 0:
                conflicting["query"] += " "
            elif change == 1:
                conflicting["ts"] += 1
            elif change == 2:
                conflicting["items"][-1]["title"] = "another title"
            elif change == 3:
                conflicting["items"].append({"item_id": "one more", "relevance": 1})
            else:
                conflicting["context"] = {"changed": "yes"}
            self._add_arrival(conflicting, self.now + delay + rng.choice([1, 30_000, 30 * MINUTE, 5 * HOUR]))

    def _clock_offset(self, user: str) -> int:
        """Draw the clock error of a page; the first page of a user has none."""
        rng = self.rng
        if user not in self.users_seen:
            self.users_seen.add(user)
            return 0
        if rng.random() >= self.disorder.jump:
            return 0
        kind = rng.randrange(4)
        if kind == 0:
            return rng.randrange(HOUR, 48 * HOUR)
        if kind == 1:
            return -rng.randrange(HOUR, 48 * HOUR)
        if kind == 2:
            return rng.randrange(1 * YEAR, 60 * YEAR)
        return -rng.randrange(1 * YEAR, 40 * YEAR)

    def _delay(self) -> float:
        rng = self.rng
        if rng.random() < self.disorder.late:
            return 10 ** rng.uniform(3.5, 7.2)
        return rng.uniform(0, 2000)

    def _request_id(self, number: int) -> str:
        name = f"r{self.rng.randrange(10**9)}-{number}"
        return name + self.rng.choice(UNUSUAL_STRINGS) if self.rng.random() < 0.1 else name

    def _make_page(self, request_id: str, user: str, ts: int) -> Event:
        rng = self.rng
        count = rng.choice([1, 2, 3, 5, 8, 10]) if rng.random() < 0.998 else 200
        items: list[Event] = []
        for index in range(count):
            item: Event = {"item_id": rng.choice(self.items), "relevance": rng.randint(1, 4)}
            if rng.random() < 0.7:
                item["title"] = f"title {rng.choice(COLOURS)} {rng.randrange(50)}"
            if rng.random() < 0.5:
                item["price"] = rng.choice([5, 9.99, 0, 1e308, 1e-9, 12345678901234567890])
            if rng.random() < 0.5:
                item["category"] = rng.choice(["shoes", "hats", "日本", ""])
            if rng.random() < 0.3:
                item["brand"] = rng.choice(["acme", None])
            if rng.random() < 0.3:
                item["position"] = index + 1 if rng.random() < 0.7 else rng.randint(1, 40)
            items.append(item)
        page: Event = {"type": "impression", "request_id": request_id, "user_id": user, "ts": ts, "items": items}
        page["query"] = rng.choice(self.queries[: int(len(self.queries) * rng.random()) + 1])
        if rng.random() < 0.1:
            page["context"] = rng.choice([{}, {"device": "phone"}, {"device": "tv", "land": "DE"}, None])
        return page

    def _clicks(self, page: Event) -> list[tuple[Event, float]]:
        rng = self.rng
        clicks: list[tuple[Event, float]] = []
        for index, item in enumerate(page["items"][:12]):
            if rng.random() > 0.35 * (index + 1) ** -0.7:
                continue
            click = {k: page[k] for k in ("request_id", "user_id")} | {"type": "click", "item_id": item["item_id"]}
            wait = int(math.exp(rng.gauss(math.log(12), 0.9)) * SECOND)
            if rng.random() < self.disorder.beyond_window:
                wait = rng.choice([WINDOW, WINDOW + 1, WINDOW - 1, 3 * MINUTE, HOUR, 7 * HOUR])
            if rng.random() < 0.01:
                wait = -rng.choice([0, 1, 5000, 200_000])
            click["ts"] = page["ts"] + wait
            when = self.now + wait + self._delay()
            if rng.random() < self.disorder.before_page:
                when = self.now - rng.uniform(0, 3000) if rng.random() < 0.7 else self.now - rng.uniform(0, 30 * MINUTE)
            if rng.random() < self.disorder.foreign:
                click["item_id"] = "never shown"
            if rng.random() < self.disorder.another_users_click:
                click["user_id"] = self._draw_user()
                self.users_seen.add(click["user_id"])
            if rng.random() < self.disorder.unknown_page:
                click["request_id"] += "?"
            clicks.append((click, when))
        return clicks

    def _confirmed_jump(self, number: int, max_jump: int) -> None:
        """Two users of one partition (of 1, 3, 4 and 8) whose clocks agree and are ahead of all others."""
        rng = self.rng
        users_by_partition: dict[int, list[str]] = {}
        for name in self.users[: len(self.users) // 2]:
            users_by_partition.setdefault(partition_of(name, 24), []).append(name)
        pair = next((names for names in users_by_partition.values() if len(names) > 1), [])
        if not pair:
            return
        ahead = self.now + rng.randrange(int(1.1 * HOUR), max_jump)
        for number_in_pair, user in enumerate(rng.sample(pair, 2)):
            page = self._make_page(f"jump {number} {number_in_pair}", user, ahead + rng.randrange(HOUR // 2))
            self._add_arrival(page, self.now + 3000 + number_in_pair * 1000)
            self._add_arrival(
                {
                    "type": "click",
                    "request_id": page["request_id"],
                    "user_id": user,
                    "item_id": page["items"][0]["item_id"],
                    "ts": page["ts"] + 9,
                },
                self.now + 3500 + number_in_pair * 1000,
            )

    # --- bytes ----------------------------------------------------------------------------------------------

    def _add_arrival(self, event: Event, when: float) -> None:
        if event["ts"] >= 0:
            self.arrivals.append((when, len(self.arrivals), self._encode_variant(event)))

    def _encode_variant(self, event: Event) -> bytes:
        """Encode an event in one of many equivalent ways."""
        rng = self.rng
        if rng.random() < 0.2:
            event = dict(rng.sample(sorted(event.items(), key=lambda pair: pair[0]), len(event)))
        if rng.random() < 0.1:
            event = event | {"extra": rng.choice([None, 1, "x", [1, {"items": []}], {"type": "click"}, 10**30])}
        text = json.dumps(event, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", ": ")]))
        if rng.random() < 0.02:
            text = f"  {text}\t\r"
        return text.encode()

    def _in_other_forms(self, lines: list[bytes]) -> list[bytes]:
        # Numbers of its own, so that the world is otherwise the same.
        rng = random.Random(len(lines))
        return [
            new
            for line in lines
            for new in (in_another_form(rng, line) if rng.random() < self.disorder.other_forms else [line])
        ]

    def _with_malformed(self, lines: list[bytes]) -> list[bytes]:
        with_malformed: list[bytes] = []
        for line in lines:
            with_malformed.append(line)
            if self.rng.random() < self.disorder.malformed:
                with_malformed.append(corrupt_line(self.rng, line))
        return with_malformed


def corrupt_line(rng: random.Random, line: bytes) -> bytes:
    """Corrupt a line in one of many ways, so that it is no event."""
    if rng.random() < 0.4:
        return rng.choice(_corrupt_bytes(rng, line))
    event = json.loads(line)
    corruptions = _corrupt_clicks() if event["type"] == "click" else _corrupt_pages()
    return json.dumps(event | rng.choice([*corruptions, *_corrupt_fields()])).encode()


def _corrupt_bytes(rng: random.Random, line: bytes) -> list[bytes]:
    body = line.strip()
    return [
        b"",
        b"   ",
        b"null",
        b"[]",
        b"3",
        b'"click"',
        b"{}",
        body[: rng.randrange(1, len(body))],
        body + b"}",
        body + body,
        b"\xef\xbb\xbf" + body,
        b"\xff\xfe" + body,
        body[:-1] + b',"x":NaN}',
        body[:-1] + b',"x":Infinity}',
        body[:-1] + b',"x":01}',
        body[:-1] + b",}",
        body.replace(b'"user_id"', b"'user_id'"),
        body.replace(b'"user_id"', b'"user_id\xc3\x28"'),
        b'{"type":"click","request_id":"r","user_id":"\xed\xa0\x80","item_id":"i","ts":1}',
        b'{"type":"click","request_id":"a\nb","user_id":"u","item_id":"i","ts":1}'.replace(b"\n", b"\x01"),
        b"[" * 5000,
        bytes(rng.randrange(256) for _ in range(40)).replace(b"\n", b"?"),
    ]


def _corrupt_fields() -> list[Event]:
    return [
        {"type": "purchase"},
        {"type": None},
        {"type": 1},
        {"request_id": 7.5},
        {"request_id": ""},
        {"request_id": "x" * 257},
        {"request_id": "é" * 129},
        {"user_id": None},
        {"user_id": ["u1"]},
        {"user_id": "😀" * 65},
        {"ts": "1700000000000"},
        {"ts": 1.5},
        {"ts": 1_700_000_000},
        {"ts": 1700000000000.5},
        {"ts": "2023-11-14T22:13:20"},
        {"ts": True},
        {"ts": -1},
        {"ts": 10**30},
        {"ts": 253_402_300_800_000},
        {"ts": None},
    ]


def _corrupt_clicks() -> list[Event]:
    return [{"item_id": None}, {"item_id": True}, {"item_id": "i" * 300}, {"item_id": ""}]


def _corrupt_pages() -> list[Event]:
    item = {"item_id": "i1", "relevance": 2}
    return [
        {"items": [item | {"features": {"bm25": [1]}}]},
        {"items": [item] * 201},
        {"items": [item] * 10_000},
        {"items": None},
        {"items": {"0": item}},
        {"items": ["i1"]},
        {"items": [item | {"relevance": 5}]},
        {"items": [item | {"relevance": 0}]},
        {"items": [item | {"relevance": "3"}]},
        {"items": [item | {"relevance": 2.5}]},
        {"items": [item | {"price": "cheap"}]},
        {"items": [item | {"price": True}]},
        {"items": [item | {"position": 0}]},
        {"items": [item | {"position": "1"}]},
        {"items": [item | {"title": "t" * 2001}]},
        {"items": [item | {"title": 4}]},
        {"items": [{"relevance": 1}]},
        {"features": {"n" * 257: 1}},
        {"query": 5},
        {"query": "q" * 2001},
        {"context": {"a": 1}},
        {"context": ["a"]},
        {"context": "phone"},
    ]
