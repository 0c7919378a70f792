"""`verify` finds wrong counts, and a query that is looked up agrees with the examples."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prectr.state.errors import CheckpointError, PrectrError
from prectr.state.store import Store
from prectr.stream.aggregate.query_state import decode_stored_query
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.join.state import META_KEY, JoinMeta
from prectr.stream.replay.run_checkpoint import list_checkpoints
from prectr.stream.replay.runner import Replay
from prectr.stream.replay.verify import read_metas, verify
from prectr.stream.serving.query_lookup import look_up_query
from testkit.oracle.contract import normalise
from testkit.oracle.oracle import expected_replay as brute_force
from tests.kit.stages.events import HOUR, MINUTE, WINDOW, T, click, page
from tests.kit.stages.replays import open_replay, replay_to_end
from tests.oracle.world import Disorder, make_world

DISORDER = Disorder(pages=120, users=12, gap=20.0, late=0.1, jump=0.03, nights=1, confirmed_jumps=1, malformed=0.08)


def log_of(folder: Path, lines: list[bytes], name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and `open`, one that can be continued."""
    folder = tmp_path_factory.mktemp("made")
    log = log_of(folder, make_world(5, DISORDER))
    replay_to_end([log], folder / "finished")
    replay_to_end([log], folder / "open", flush=False)
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "finished", tmp_path / "finished"))


def failed(run_dir: Path) -> list[str]:
    return [check.name for check in verify(run_dir) if not check.holds]


# --- verify --------------------------------------------------------------------------------------------------------


def test_every_check_holds_for_a_finished_run_and_for_an_incomplete_one(made: Path) -> None:
    for run_dir in (made / "finished", made / "open"):
        assert failed(run_dir) == []
        names = [check.name for check in verify(run_dir)]
        assert [name for name in names if "conservation" in name] == [
            "join-0: conservation",
            "join-1: conservation",
        ]
        assert {"records", "lines", "examples", "pages emitted", "frames", "dead letters"} <= set(names)


def test_a_run_is_accounted_for_at_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if an idle partition keeps every page in the merges."""
    monkeypatch.setattr("prectr.stream.replay.runner.STEP_LINES", 50)
    busy = log_of(tmp_path, make_world(6, DISORDER))
    quiet = log_of(tmp_path, [page(f"r{number}", "u", T + number * MINUTE) for number in range(200)], "quiet.jsonl")
    for log in (busy, quiet):
        run_dir = tmp_path / f"run of {log.stem}"
        replay_to_end([log], run_dir, checkpoint_interval=0, progress=check_newest_checkpoint)
        assert failed(run_dir) == []


def check_newest_checkpoint(replay: Replay) -> None:
    run_dir = replay._run_dir
    if list_checkpoints(run_dir / "checkpoints"):
        assert failed(run_dir) == []


def test_verify_changes_nothing_of_the_run(finished: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in finished.rglob("*") if path.is_file() and not path.name.startswith("LOG"))
        return {str(path): path.read_bytes() for path in files}

    before = contents()
    verify(finished)
    assert contents() == before


Tampering = Callable[[dict[str, Any]], None]


def _more(name: str) -> Tampering:
    def tamper(checkpoint: dict[str, Any]) -> None:
        (checkpoint if name in checkpoint else checkpoint["digest"])[name] += 1

    return tamper


def _lines(checkpoint: dict[str, Any]) -> None:
    checkpoint["files"][0]["lines_read"] -= 1


def _dead(checkpoint: dict[str, Any]) -> None:
    checkpoint["dead_letters"]["not_json"] += 1


@pytest.mark.parametrize(
    ("tamper", "names"),
    [
        (_more("lines_read"), {"records", "lines", "join-0: offset", "join-1: offset"}),
        (_more("pages"), {"examples", "all released"}),
        (_more("dead_letter_bytes"), {"dead-letters.jsonl"}),
        (_lines, {"lines"}),
        (_dead, {"dead letters"}),
    ],
)
def test_a_wrong_number_in_the_manifest_is_found(finished: Path, tamper: Tampering, names: set[str]) -> None:
    manifest = list_checkpoints(finished / "checkpoints")[0] / "checkpoint.json"
    checkpoint = json.loads(manifest.read_bytes())
    tamper(checkpoint)
    manifest.write_text(json.dumps(checkpoint))
    assert set(failed(finished)) == names


def test_a_wrong_count_of_a_task_is_found_with_its_numbers(finished: Path) -> None:
    store = Store(list_checkpoints(finished / "checkpoints")[0] / "state" / "join-1")
    (value,) = store.get_many([META_KEY])
    assert value is not None
    meta = msgspec.msgpack.decode(value, type=JoinMeta)
    meta.outcomes.clicks.joined += 1
    store.write({META_KEY: msgspec.msgpack.encode(meta)})
    store.close()
    wrong = [check for check in verify(finished) if not check.holds]
    assert [check.name for check in wrong] == ["join-1: conservation"]
    clicks = meta.outcomes.clicks
    assert wrong[0].detail.startswith(f"clicks: {clicks.received} in, but {clicks.joined} joined + ")
    assert wrong[0].detail.endswith(f"= {clicks.received + 1}")


def test_truncated_dead_letters_are_found(finished: Path) -> None:
    path = finished / "dead-letters.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert failed(finished) == ["dead-letters.jsonl"]
    path.unlink()
    assert failed(finished) == ["dead-letters.jsonl"]


def test_a_run_that_has_written_nothing_to_its_stores_is_accounted_for(tmp_path: Path) -> None:
    """Stores without their first entry count as zero."""
    replay, _ = open_replay([log_of(tmp_path, [])], tmp_path / "run")
    replay.run(flush=False)
    replay.close()
    folder = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    for stage in ("join", "aggregate"):
        for task in range(2):
            store = Store(folder / "state" / f"{stage}-{task}")
            store.write({b"m": None})
            store.close()
    sessions, queries = read_metas(folder)
    assert [meta.outcomes for meta in sessions.values()] == [Outcomes(), Outcomes()]
    assert [meta.emitted for meta in queries.values()] == [0, 0]
    assert failed(tmp_path / "run") == []


def test_a_folder_without_a_checkpoint_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="contains no checkpoint of a replay: use another run folder"):
        verify(tmp_path)


# --- outcomes ------------------------------------------------------------------------------------------------------


def test_outcomes_add_up_and_imbalances_name_what_does_not() -> None:
    a = Outcomes(PageOutcomes(6, 1, 2, 1, 1, 1), ClickOutcomes(8, 1, 1, 1, 1, 1, 1, 1, 1), 2)
    b = Outcomes(PageOutcomes(1, 1, 0, 0, 0, 0), ClickOutcomes(1, 0, 0, 0, 0, 0, 0, 0, 1), 3)
    total = a + b
    assert (total.records, total.unreadable) == (6 + 8 + 2 + 1 + 1 + 3, 5)
    assert (total.pages.emitted, total.clicks.dead_letter) == (2, 2)
    assert a.imbalances() == b.imbalances() == total.imbalances() == []
    total.pages.open += 1
    total.clicks.received += 1
    assert total.imbalances() == [
        "pages: 7 in, but 2 emitted + 3 open + 1 empty + 1 duplicate + 1 dead_letter = 8",
        "clicks: 10 in, but 1 joined + 1 duplicate + 1 late + 1 orphan + 1 foreign + 1 waiting + 1 other_action + "
        "2 dead_letter = 9",
    ]


# --- looking a query up --------------------------------------------------------------------------------------------


def test_every_query_is_found_with_the_counts_of_its_pages(made: Path) -> None:
    """Applied and unapplied pages add up to all examples of the query."""
    examples = brute_force(make_world(5, DISORDER), 2)["examples"]
    totals: dict[str, list[int]] = {}
    for example in examples:
        counts = totals.setdefault(example["query"], [0] * 8)
        for item in example["items"]:
            counts[item["relevance"] - 1] += 1
            counts[item["relevance"] + 3] += item["click"]
    assert len(totals) > 10
    for query, counts in totals.items():
        found = look_up_query(made / "finished", query)
        assert [a + b for a, b in zip(found.totals, found.unapplied_counts, strict=True)] == counts
        assert found.query == query == normalise(query)


def test_a_query_is_looked_up_as_a_user_types_it_with_its_clicks_and_sums(tmp_path: Path) -> None:
    lines = [
        page("r1", "u", T, query="USB  Cable"),
        click("r1", "u", T + 1, "b"),
        click("r1", "u", T + 2, "a"),
        page("r2", "v", T + WINDOW, query="usb cable"),
        click("r2", "v", T + WINDOW + 5, "a"),
        page("r3", "w", T + HOUR // 2, query="another"),
    ]
    replay_to_end([log_of(tmp_path, lines)], tmp_path / "run")
    found = look_up_query(tmp_path / "run", " usb\tCABLE ")
    assert found.query == "usb cable"
    assert found.totals == (1, 0, 0, 1, 1, 0, 0, 1)
    assert found.half_lives == (21_600.0, 86_400.0, 604_800.0)
    assert found.decayed_sums == ((1.0, 0, 0, 1.0, 1.0, 0, 0, 1.0),) * 3
    assert (found.decayed_to, found.updated_at) == (T + WINDOW, T + 2 * WINDOW)
    assert (found.unapplied_pages, found.unapplied_counts) == (1, (1, 0, 0, 1, 0, 0, 0, 1))
    assert [(last.ts, last.item_id, last.level) for last in found.last_clicks] == [(T + 1, "b", 1), (T + 2, "a", 4)]
    assert look_up_query(tmp_path / "run", "another").unapplied_counts == (1, 0, 0, 1, 0, 0, 0, 0)


def test_a_query_without_pending_pages_has_zero_counts_of_them(tmp_path: Path) -> None:
    log = log_of(tmp_path, [page("r1", "u", T), page("r2", "u", T + WINDOW), click("none", "v", T + WINDOW)])
    replay, _ = open_replay([log], tmp_path / "run")
    replay.run(flush=True)
    replay.close()
    found = look_up_query(tmp_path / "run", "usb cable")
    assert found.unapplied_pages == 1
    folder = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    store = Store(folder / "state" / f"aggregate-{found.partition}")
    (value,) = store.get_many([b"qusb cable"])
    assert value is not None
    entry = decode_stored_query(value)
    entry.unapplied_pages.clear()
    store.write({b"qusb cable": msgspec.msgpack.encode(entry)})
    store.close()
    found = look_up_query(tmp_path / "run", "usb cable")
    assert (found.unapplied_pages, found.unapplied_counts) == (0, (0,) * 8)


def test_an_unknown_query_is_an_error_that_names_it(made: Path) -> None:
    with pytest.raises(PrectrError, match="query 'never asked' is not in"):
        look_up_query(made / "finished", "Never  asked")
