"""The sample of request ids: everything of a key is kept, memory is bounded, shares are those of the log."""

from prectr.stream.check.click_windows import click_report
from prectr.stream.check.key_sample import KeySample
from prectr.stream.events.contract import Click, Item, ResultPage
from tests.kit.stages.events import MINUTE, SECOND, T

PAGES = 4_000


def sample_of(max_entries: int) -> KeySample:
    """Pages of 4 items a minute apart, with a click on 3 of 4 pages, half of them after 5 minutes."""
    sample = KeySample(max_entries)
    number = 0
    for page in range(PAGES):
        ts = T + page * MINUTE
        items = [Item(item_id=str(item), position=item + 1) for item in range(4)]
        sample.add_page(ResultPage(request_id=f"r{page}", user_id="u", query="q", ts=ts, items=items), ts, number)
        number += 1
        if page % 4:
            delay = 5 * MINUTE if page % 2 else SECOND
            sample.add_click(Click(request_id=f"r{page}", user_id="u", item_id="2", ts=ts + delay), ts, number)
            number += 1
    return sample


def test_the_sample_is_the_whole_log_where_it_fits() -> None:
    sample = sample_of(PAGES * 6)
    assert sample.fraction == 1
    assert (len(sample.pages().key), len(sample.clicks().key), len(sample.pages().shown)) == (PAGES, 3_000, 16_000)


def test_a_sample_is_bounded_and_its_shares_are_those_of_the_log() -> None:
    sample = sample_of(8_000)
    pages, clicks = sample.pages(), sample.clicks()
    assert sample.fraction == 0.25
    assert len(pages.key) + len(clicks.key) + len(pages.shown) <= 8_000
    # 1,000 of 4,000 pages are expected, with a standard error of 27.
    assert abs(len(pages.key) - 1_000) < 110
    report = click_report(pages, clicks, window=120.0, allowed_lateness=5.0, is_whole=False)
    assert (report.without_page, report.not_shown, report.of_another_user) == (0, 0, None)
    # Of the 3,000 clicks, 1,000 come in time.
    assert abs(report.configured.joined_if_sorted / report.distinct - 1 / 3) < 0.06
    assert abs(report.distinct / report.pages - 0.75) < 0.06
