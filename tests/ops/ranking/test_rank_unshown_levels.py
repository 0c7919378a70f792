"""Logs without relevance in which some levels never occur, ranked with every model: what fits comes first."""

import json
import random
from collections.abc import Iterator

import pytest

from prectr.model.config import MODEL_NAMES
from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef
from prectr.ops.settings.loader import load_settings
from prectr.ops.training.replay import run_replay
from prectr.stream.events.contract import Item
from testkit.command import write_log
from tests.kit.stages.events import SECOND, T, click

PAGES = 250
SETTINGS = {"batch_span": "1d", "embedding_rows": 4096, "wide_rows": 4096}
COLOURS = ("red", "blue", "green", "black")
THINGS = {
    "running shoe": "shoes",
    "walking boot": "shoes",
    "smart phone": "phones",
    "mobile phone": "phones",
    "studio headphones": "audio",
}
ITEMS = [
    Item(f"i{number}", f"{colour.title()} {thing} model {model}", None, 20.0 + number % 17, category, None, None)
    for number, (colour, (thing, category), model) in enumerate(
        (colour, named, model) for colour in COLOURS for named in THINGS.items() for model in range(6)
    )
]
SHOES = [item for item in ITEMS if item.title.startswith("Red running shoe")][:3]  # type: ignore[union-attr]
PHONES = [item for item in ITEMS if item.category == "phones" and item.title.startswith("Blue")][:4]  # type: ignore[union-attr]
LOGS = {
    # Every title has all words of its query, as an engine that asks for all words returns them: level 4 alone.
    "only level 4": ("{colour} {thing}", 1.0, 0.05),
    # One word of each query is in no title: level 3 alone.
    "only level 3": ("{colour} {thing} cheap", 0.7, 0.05),
    # Titles share one word of the two or three, or all: level 1 is never shown.
    "no level 1": ("{colour} {thing}", 0.3, 0.08),
}


def _lines(query_form: str, least_shared: float, click_rate: float) -> Iterator[bytes]:
    draw = random.Random(7)
    for number in range(PAGES):
        thing, colour = draw.choice(list(THINGS)), draw.choice(COLOURS)
        query = query_form.format(colour=colour, thing=thing)
        words = set(query.split())

        def shared(item: Item, words: set[str] = words) -> float:
            return len(words & set((item.title or "").lower().split())) / len(words)

        found = draw.sample([item for item in ITEMS if shared(item) >= least_shared], 5)
        user, ts = f"u{number % 40}", T + number * 40 * SECOND
        shown = [{"item_id": item.item_id, "title": item.title, "category": item.category} for item in found]
        event = {"type": "impression", "request_id": f"r{number}", "user_id": user, "query": query, "ts": ts}
        yield json.dumps(event | {"items": shown}).encode()
        for item in found:
            if draw.random() < click_rate * shared(item) ** 2:
                yield click(f"r{number}", user, ts + 3 * SECOND, item.item_id)


@pytest.fixture(scope="module", params=LOGS)
def rankers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRanker]:
    """By model, of one replay."""
    folder = tmp_path_factory.mktemp("log")
    log = write_log(folder / "log.jsonl", list(_lines(*LOGS[request.param])))
    run_replay([str(log)], folder / "run", load_settings(None, SETTINGS, environ={}), models=MODEL_NAMES)
    return {model: RunRanker(RunRef(run_dir=folder / "run", model=model)) for model in MODEL_NAMES}


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_shoes_come_before_phones_for_a_query_for_shoes(rankers: dict[str, RunRanker], model: str) -> None:
    for query in ("red running shoe", "red running shoe cheap"):
        for user in ("u1", "nobody"):
            ranking = rankers[model].rank(RankQuery(query=query, user_id=user, items=[*PHONES, *SHOES]))
            assert {each.category for each in ranking.ranked[:3]} == {"shoes"}, ranking.ranked
            for preference in (ranking.user_preference, ranking.query_preference):
                shown = [int(level) for level, impressions in preference.impressions.items() if impressions]
                assert preference.preferred in (shown or [None])
            # What is read from the text may be of a level that the labels never have.
            if not model.startswith("prectr"):
                assert [note for note in ranking.notes if "candidates are of level" in note]
