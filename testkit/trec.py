"""The TREC 2013 session log as events: a session is the user, an interaction one page.

The log has times of pages only, from the start of each session. Sessions follow each other, each starting when the last
page of the previous one has closed; the clicks of a page are spread, in the order of their ranks, between the page and
the next one of its session, within the attribution window.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

TREC_PAGES = Path(__file__).resolve().parents[2] / "shared" / "data" / "trec-session-2013" / "pages.jsonl.gz"
IMPRESSIONS = 4449
CLICKS = 558

START = 1_370_000_000_000
WINDOW = 120_000
LEVEL_OF_GRADE = {-2: 1, 0: 1, 1: 2, 2: 3, 3: 4, 4: 4}
"""Relevance level of a topical grade; the labeller infers that of an unjudged document."""


def trec_events(pages: Path = TREC_PAGES) -> Iterator[dict[str, Any]]:
    """All events in order of time; pages without items are not valid events and are omitted."""
    with gzip.open(pages, "rt", encoding="utf-8") as lines:
        logged = [json.loads(line) for line in lines]
    start = START
    for session, shown in groupby(logged, key=lambda page: page["session"]):
        visits = list(shown)
        times = [start + round(1000 * page["t_in_session"]) for page in visits]
        for page, ts, following in zip(visits, times, [*times[1:], times[-1] + WINDOW], strict=True):
            if page["items"]:
                yield from _page_and_clicks(page, f"trec-{session}", ts, min(following - ts, WINDOW))
        start = times[-1] + WINDOW + 60_000


def write_trec_log(path: Path, pages: Path = TREC_PAGES) -> Path:
    """Write the TREC sessions as a log of events; returns its path."""
    with path.open("w", encoding="utf-8") as log:
        for event in trec_events(pages):
            log.write(json.dumps(event, ensure_ascii=False) + "\n")
    return path


def _page_and_clicks(page: dict[str, Any], user: str, ts: int, span: int) -> Iterator[dict[str, Any]]:
    request = f"{user}-{page['interaction']}"
    ids = {"request_id": request, "user_id": user}
    items = [_item(item) for item in page["items"]]
    yield {"type": "impression", **ids, "query": page["query"], "ts": ts, "items": items}
    clicked = [item["doc"] for item in page["items"] if item["click"]]
    for number, doc in enumerate(clicked, 1):
        yield {"type": "click", **ids, "item_id": doc, "ts": ts + span * number // (len(clicked) + 1)}


def _item(item: dict[str, Any]) -> dict[str, Any]:
    event = {"item_id": item["doc"], "title": item["title"][:2000], "position": item["rank"]}
    if item["grade"] is not None:
        event["relevance"] = LEVEL_OF_GRADE[item["grade"]]
    return event
