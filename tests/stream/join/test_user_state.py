"""The click history of a user: which clicks are kept while pages are pending."""

from random import Random

import pytest

from prectr.stream.events.contract import ResultPage
from prectr.stream.join.pending_pages import PendingPage
from prectr.stream.join.user_state import HistoryEntry, UserState

KEEP = 2


def pending(user: UserState, number: int, ts: int) -> PendingPage:
    event = ResultPage(request_id=f"r{number}", user_id="u", ts=ts, query="q", items=[])
    return PendingPage(number, ts + 1, event, b"", b"", "q", user, b"", bytearray())


@pytest.mark.parametrize("seed", range(20))
def test_kept_are_the_clicks_since_the_oldest_pending_page_and_some_before(seed: int) -> None:
    """Time moves on; there are few pending pages at times, and many at others."""
    rng = Random(seed)
    times = [number + rng.randrange(60) for number in range(600)]
    steps = [
        (rng.choices(["page", "close", "click"], [2, 3 if number // 100 % 2 else 1, 2])[0], ts)
        for number, ts in enumerate(times)
    ]
    user, pages, clicks = UserState(None), dict[int, int](), list[HistoryEntry]()
    for number, (step, value) in enumerate(steps):
        if step == "page":
            user.add_pending_page(pending(user, number, value))
            pages[number] = value
        elif step == "close" and pages:
            closed = rng.choice(sorted(pages)[:3])
            del pages[closed], user.pending_pages[f"r{closed}"]
        elif step == "click":
            click = (value, f"r{number}", "i", b"")
            clicks = sorted([*clicks, click])
            user.add_click(click, KEEP)
            since = min(pages.values(), default=1 << 20)
            clicks = clicks[max(0, sum(ts < since for ts, *_ in clicks) - KEEP) :]
            assert user.entry.clicks == clicks
