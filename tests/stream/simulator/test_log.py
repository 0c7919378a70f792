"""The simulated log: reproducible bytes, arrival order, and exactly the documented disorder."""

import gzip
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

import prectr.stream.simulator.world as world_module
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.events.contract import Click, Event, ResultPage
from prectr.stream.simulator import SimulatedLog, WorldSettings, simulate
from prectr.stream.simulator.corruption import CORRUPTIONS, PAGE_CORRUPTIONS
from prectr.stream.simulator.ground_truth import SCHEMA

PAGES = 6000
decode = msgspec.json.Decoder(Event).decode


class Read:
    """A log read back: valid events in order, and invalid lines."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_bytes().splitlines()
        self.events: list[ResultPage | Click] = []
        self.bad: list[bytes] = []
        for line in self.lines:
            try:
                self.events.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.bad.append(line)
        self.pages = {e.request_id: e for e in self.events if isinstance(e, ResultPage)}
        self.clicks = [e for e in self.events if isinstance(e, Click)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedLog]:
    folder = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_module, "BLOCK_PAGES", 1700)
        log = simulate(folder / "log.jsonl", WorldSettings(pages=PAGES, seed=5, days=3), truth=folder / "truth.parquet")
    return folder, log


@pytest.fixture(scope="module")
def read(made: tuple[Path, SimulatedLog]) -> Read:
    return Read(made[0] / "log.jsonl")


@pytest.fixture(scope="module")
def truth(made: tuple[Path, SimulatedLog]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(made[0] / "truth.parquet").to_pylist()
    return rows


def test_same_seed_gives_the_same_bytes_packed_or_not_with_or_without_truth(tmp_path: Path) -> None:
    settings = WorldSettings(pages=300, queries=50, items=1000, seed=3)
    simulate(tmp_path / "a.jsonl", settings)
    simulate(tmp_path / "b.jsonl", settings, truth=tmp_path / "t.parquet")
    simulate(tmp_path / "c.jsonl.gz", settings)
    simulate(tmp_path / "d.jsonl.gz", settings)
    simulate(tmp_path / "e.jsonl", msgspec.structs.replace(settings, seed=4))
    plain = (tmp_path / "a.jsonl").read_bytes()
    assert (tmp_path / "b.jsonl").read_bytes() == plain
    assert gzip.decompress((tmp_path / "c.jsonl.gz").read_bytes()) == plain
    assert (tmp_path / "c.jsonl.gz").read_bytes() == (tmp_path / "d.jsonl.gz").read_bytes()
    assert (tmp_path / "e.jsonl").read_bytes() != plain


def test_counts_are_what_the_file_holds(made: tuple[Path, SimulatedLog], read: Read) -> None:
    log = made[1]
    assert len(read.lines) == log.lines
    assert len(read.pages) == log.pages == PAGES
    assert sum(len(page.items) for page in read.pages.values()) == log.impressions == 10 * PAGES
    assert len(read.clicks) == log.clicks + log.duplicated_clicks + log.unknown_page_clicks
    assert len(read.bad) == log.malformed_events
    assert (made[0] / "log.jsonl").stat().st_size == log.bytes
    assert log.seconds_of_log == pytest.approx(3 * 86400, rel=0.01)


def test_disorder_has_the_configured_rates(tmp_path: Path) -> None:
    log = simulate(tmp_path / "log.jsonl", WorldSettings(pages=40_000, seed=1, queries=100, items=1000))
    read = Read(tmp_path / "log.jsonl")
    again = sum(n - 1 for n in Counter((c.request_id, c.item_id, c.ts) for c in read.clicks).values())
    unknown = sum(c.request_id not in read.pages for c in read.clicks)
    beyond = sum(c.ts > read.pages[c.request_id].ts + 120_000 for c in read.clicks if c.request_id in read.pages)
    delays = [c.ts - read.pages[c.request_id].ts for c in read.clicks if c.request_id in read.pages]
    good = log.lines - log.malformed_events
    assert again / log.clicks == pytest.approx(0.003, abs=0.001)
    assert unknown / log.clicks == pytest.approx(0.002, abs=0.001)
    assert beyond / log.clicks == pytest.approx(0.010, abs=0.002)
    assert len(read.bad) / good == pytest.approx(0.001, abs=0.0005)
    assert np.median(delays) == pytest.approx(12_000, rel=0.02)
    assert min(delays) > 0


def test_events_are_out_of_order_by_at_most_two_seconds(read: Read) -> None:
    times = np.array([event.ts for event in read.events])
    behind = np.maximum.accumulate(times) - times
    assert 0 < behind.max() <= 2000
    assert (behind > 0).mean() > 0.005


def test_every_malformation_of_a_page_or_a_click_is_no_event(read: Read) -> None:
    page = next(line for line in read.lines if line.startswith(b'{"type":"impression"') and line not in read.bad)
    click = next(line for line in read.lines if line.startswith(b'{"type":"click"') and line not in read.bad)
    cases = [(page, kind) for kind in {**CORRUPTIONS, **PAGE_CORRUPTIONS}.items()]
    cases += [(click, kind) for kind in CORRUPTIONS.items()]
    for line, (name, break_it) in cases:
        broken = break_it(line)
        assert b"\n" not in broken, name
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            pytest.fail(f"{name} decodes: {decode(broken)}")


def test_items_carry_all_fields_and_positions_count_from_one(read: Read) -> None:
    for page in list(read.pages.values())[:200]:
        assert [item.position for item in page.items] == list(range(1, 11))
        assert len({item.item_id for item in page.items}) == 10
        for item in page.items:
            assert item.title
            assert item.category
            assert item.brand
            assert item.relevance in (1, 2, 3, 4)
            assert item.price is not None
            assert item.price > 0


def test_truth_has_every_impression_and_its_click(read: Read, truth: list[dict[str, object]]) -> None:
    exposed = [row for row in truth if row["slice"] == "exposed"]
    shown = [
        (p.request_id, p.user_id, p.query, p.ts, i.item_id, i.position, i.relevance)
        for p in read.pages.values()
        for i in p.items
    ]
    keys = ("request_id", "user_id", "query", "ts", "item_id", "position", "level")
    assert sorted(tuple(row[key] for key in keys) for row in exposed) == sorted(shown)
    clicked = {(row["request_id"], row["item_id"]) for row in exposed if row["clicked"]}
    joined = {(row["request_id"], row["item_id"]) for row in exposed if row["joined"]}
    known = [click for click in read.clicks if click.request_id in read.pages]
    assert {(c.request_id, c.item_id) for c in known} == clicked
    assert {(c.request_id, c.item_id) for c in known if c.ts <= read.pages[c.request_id].ts + 120_000} == joined


def test_truth_counts_the_users_clicks_and_earlier_showings_as_one_pass_does(
    read: Read, truth: list[dict[str, object]]
) -> None:
    clicks: dict[str, set[tuple[int, str, str]]] = defaultdict(set)
    for click in read.clicks:
        page = read.pages.get(click.request_id)
        if page is not None and click.ts <= page.ts + 120_000:
            clicks[click.user_id].add((click.ts, click.request_id, click.item_id))
    by_page: dict[int, list[dict[str, object]]] = defaultdict(list)
    for row in truth:
        by_page[int(str(row["page"]))].append(row)
    shown: Counter[tuple[object, object]] = Counter()
    for number in sorted(by_page):
        for row in by_page[number]:
            assert row["shown_before"] == shown[row["query"], row["item_id"]]
            assert row["user_clicks"] == sum(ts < int(str(row["ts"])) for ts, _, _ in clicks[str(row["user_id"])])
        for row in by_page[number]:
            shown[row["query"], row["item_id"]] += row["slice"] == "exposed"


def test_unexposed_and_candidate_slices_are_of_the_second_half(truth: list[dict[str, object]]) -> None:
    shown: dict[object, set[object]] = defaultdict(set)
    imagined: dict[str, dict[int, list[object]]] = {"unexposed": defaultdict(list), "candidates": defaultdict(list)}
    for row in truth:
        if row["slice"] == "exposed":
            shown[row["page"]].add(row["item_id"])
        else:
            imagined[str(row["slice"])][int(str(row["page"]))].append(row["item_id"])
            assert row["position"] == 1
            assert row["clicked"] is False
    assert sorted(imagined["unexposed"]) == list(range(PAGES // 2, PAGES))
    assert sorted(imagined["candidates"]) == [page for page in range(PAGES // 2, PAGES) if page % 16 == 0]
    for page, items in imagined["unexposed"].items():
        assert len(set(items)) == 5
        assert not set(items) & shown[page]
    for page, items in imagined["candidates"].items():
        assert len(set(items)) == 60
        assert shown[page] < set(items)


def test_truth_probability_is_the_formula_of_its_parts(made: tuple[Path, SimulatedLog]) -> None:
    table = pq.read_table(made[0] / "truth.parquet")
    assert table.schema.names == SCHEMA.names
    assert b'"seed":5' in table.schema.metadata[b"prectr.world"]
    column = {name: table[name].to_numpy() for name in SCHEMA.names if name.startswith(("z_", "pos", "prob"))}
    z = -1.9 + sum(column[f"z_{part}"] for part in ("relevance", "strictness", "taste", "popularity"))
    expected = column["position"] ** -0.7 / (1 + np.exp(-z))
    np.testing.assert_allclose(column["probability"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"pages": 0}, "pages is 0"),
        ({"pages": 9, "seed": -1}, "seed is -1"),
        ({"pages": 9, "days": 0.0}, "days is 0"),
        ({"pages": 9, "items": 10}, "1000 items"),
        ({"pages": 9, "catalogue": "books"}, "'books'"),
        ({"pages": 9, "catalogue": "chorus", "items": 2000}, "chorus"),
    ],
)
def test_arguments_that_make_no_world_are_named(tmp_path: Path, wrong: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        simulate(tmp_path / "log.jsonl", WorldSettings(**wrong))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        simulate(tmp_path / "log.csv", WorldSettings(pages=10))
    with pytest.raises(PrectrError, match="missing"):
        simulate(tmp_path / "missing" / "log.jsonl", WorldSettings(pages=10))
    with pytest.raises(PrectrError, match="gone"):
        simulate(tmp_path / "log.jsonl", WorldSettings(pages=10), truth=tmp_path / "gone" / "truth.parquet")
    assert list(tmp_path.iterdir()) == []
