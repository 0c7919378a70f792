"""Stage `join` in C++ against its specification in Python: outputs, changes and state, byte by byte."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("prectr.stream.native.core", reason="the extension is not built")

from prectr.state.errors import StateError
from prectr.stream.config import PipelineConfig
from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.operator import Join
from prectr.stream.native.event_batch import NativeEventBatch
from prectr.stream.native.join import NativeJoin
from tests.kit.stages.events import DAY, HOUR, SECOND, T
from tests.kit.stages.join_driver import DISORDER, encoded
from tests.kit.stages.store import DictStore
from tests.oracle.world import make_world

CONFIG = PipelineConfig()
SMALL = PipelineConfig(
    history_clicks=2,
    dedup_retention=60.0,
    user_ttl=1800.0,
    allowed_lateness=1.0,
    click_actions=("click", "buy"),
    max_clock_skew=600.0,
)
TEXTS = ("usb cable", " USB\tCable ", "Ünïcode  Straße", "ﬁn", "", "a\x1cb", "x\u00a0y", "日本語", "e\u0301")


def odd_world(seed: int, events: int) -> list[bytes]:
    """Few users and ids, so that all of it collides; times that jump; items, queries and fields in every form."""
    rng = Random(seed)
    users, now, lines = ["u", "v", "ü", "w\0x", *(f"n{number}" for number in range(20))], T, []
    for _ in range(events):
        now += rng.choice((0, 1, SECOND, 20 * SECOND, 3 * 60 * SECOND))
        ts = now + rng.choice((0, 0, 0, 0, -SECOND, -HOUR, 20 * SECOND, HOUR, 3 * HOUR, DAY))
        event = {
            "type": rng.choice(("impression", "click")),
            "request_id": f"r{rng.randrange(12)}",
            "user_id": rng.choice(users[: rng.choice((2, 4, 24))]),
            "ts": ts,
        }
        if event["type"] == "click":
            event["item_id"] = rng.choice("abcdz")
            event |= rng.choice(({}, {}, {}, {"action": "click"}, {"action": "buy"}, {"action": "view"}))
        else:
            event["query"] = rng.choice(TEXTS)
            event["items"] = [odd_item(rng) for _ in range(rng.choice((0, 1, 2, 5, 20)))]
            event |= rng.choice(({}, {}, {"context": {"b": "1", "a": "é"}}, {"features": {"z": 1, "y": "t"}}))
        event |= rng.choice(({}, {}, {}, {"session_id": "s"}, {"user_id": None, "session_id": "s"}, {"extra": [{}]}))
        line = json.dumps(event, ensure_ascii=rng.random() < 0.5).encode()
        lines.append(rng.choice((b"{", b"", line[:-3])) if rng.random() < 0.03 else line)
    return lines


def odd_item(rng: Random) -> dict[str, object]:
    item: dict[str, object] = {"item_id": rng.choice("abcde")}
    for name, values in {
        "title": (*TEXTS, None),
        "relevance": (1, 2, 3, 4, 4.0, None),
        "price": (1, 2.5, 1e-3, None),
        "category": ("c", None),
        "brand": ("b",),
        "position": (1, 7, None),
        "features": ({"b": 1, "a": "x", "c": 0.1}, {}),
    }.items():
        if rng.random() < 0.5:
            item[name] = rng.choice(values)
    return item


def assert_equal(
    lines: list[bytes], sizes: Random, config: PipelineConfig, *, most: int, restart: float = 0.0, written: float = 1.0
) -> None:
    """Feed both the same cuts; after a restart each goes on with the state that the other one has written."""
    stores = {NativeJoin: DictStore(), Join: DictStore()}
    label = LexicalLabeller()
    tasks = {kind: kind(config, store, label) for kind, store in stores.items()}
    position = 0
    while position < len(lines):
        end = min(len(lines), position + sizes.randint(1, most))
        offsets = range(position, end)
        native, python = tasks[NativeJoin], tasks[Join]
        theirs = python.process(EventBatch(lines[position:end], offsets), end)
        ours = native.process(NativeEventBatch(lines[position:end], offsets), end)
        assert (encoded(ours[0]), encoded(ours[1])) == (encoded(theirs[0]), encoded(theirs[1]))
        for name in ("watermark", "next_close", "outcomes", "next_offset"):
            assert getattr(native, name) == getattr(python, name), name
        assert native.future_events() == python.future_events()
        position = end
        if sizes.random() < written:
            changes = {kind: task.drain_changes() for kind, task in tasks.items()}
            assert changes[NativeJoin] == changes[Join]
            for kind, store in stores.items():
                store.write(changes[kind])
            if sizes.random() < restart:
                stores = {NativeJoin: stores[Join], Join: stores[NativeJoin]}
                tasks = {kind: kind(config, store, label) for kind, store in stores.items()}
    assert encoded(tasks[NativeJoin].flush()) == encoded(tasks[Join].flush())
    assert tasks[NativeJoin].drain_changes() == tasks[Join].drain_changes()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1 << 30),
    sizes=st.randoms(use_true_random=False),
    most=st.sampled_from([1, 7, 60]),
    restart=st.sampled_from([0.0, 0.3]),
    written=st.sampled_from([1.0, 0.3]),
)
def test_a_disordered_log_gives_the_same_in_both(
    seed: int, sizes: Random, most: int, restart: float, written: float
) -> None:
    assert_equal(make_world(seed, DISORDER), sizes, CONFIG, most=most, restart=restart, written=written)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    events=st.integers(1, 600),
    sizes=st.randoms(use_true_random=False),
    most=st.sampled_from([1, 7, 100]),
    restart=st.sampled_from([0.0, 0.3]),
    written=st.sampled_from([1.0, 0.3]),
    config=st.sampled_from([CONFIG, SMALL]),
)
def test_a_log_in_which_everything_collides_gives_the_same_in_both(
    seed: int, events: int, sizes: Random, most: int, restart: float, written: float, config: PipelineConfig
) -> None:
    assert_equal(odd_world(seed, events), sizes, config, most=most, restart=restart, written=written)


@pytest.mark.parametrize("prefix", [b"u", b"p", b"w", b"f"])
def test_a_damaged_entry_of_the_state_is_an_error_of_ours(prefix: bytes) -> None:
    lines = odd_world(3, 300)

    def process(store: DictStore) -> None:
        task = NativeJoin(CONFIG, store, LexicalLabeller())
        task.process(NativeEventBatch(lines, range(len(lines))), len(lines))
        store.write(task.drain_changes())

    store = DictStore()
    process(store)
    for key in store.keys(prefix):
        damaged = store.copy()
        damaged.entries[key] = damaged.entries[key][:-1]
        with pytest.raises(StateError, match="damaged"):
            process(damaged)
