"""Why a page is a dead letter whose request id is known with other content."""

from typing import Final

from prectr.stream.events.contract import Item, ResultPage

_USUALLY: Final = (
    "usually a tracker that sends a page again with a new time or a corrected field: the first one counts; "
    "a resend with equal fields is a duplicate, and another page needs another request_id"
)
_MAX_NAMED: Final = 5


def describe_conflict(known: ResultPage | None, page: ResultPage) -> str:
    """Return the detail of the dead letter.

    Args:
        known: the page that came before, with relevance levels filled in; None if it has closed, so that only the
            hash of its content is left.
    """
    if known is None:
        return f"a page with this request_id and other content came before and has closed; {_USUALLY}"
    differing = _differing_fields(known, page)
    if not differing:
        return f"a page with this request_id and other content came before; {_USUALLY}"
    named = ", ".join(differing[:_MAX_NAMED]) + (" and more" if len(differing) > _MAX_NAMED else "")
    return f"a page with this request_id came before, with another value of {named}; {_USUALLY}"


def _differing_fields(known: ResultPage, page: ResultPage) -> list[str]:
    names = [name for name in ("query", "ts", "context", "features") if getattr(known, name) != getattr(page, name)]
    if len(known.items) != len(page.items):
        return [*names, f"the number of items ({len(known.items)}, now {len(page.items)})"]
    for index, (before, now) in enumerate(zip(known.items, page.items, strict=True)):
        names += [f"items[{index}].{name}" for name in Item.__struct_fields__ if _differs(before, now, name)]
    return names


def _differs(before: Item, now: Item, name: str) -> bool:
    # A level that the labeller filled in was none in the log.
    if name == "relevance" and now.relevance is None:
        return False
    return bool(getattr(before, name) != getattr(now, name))
