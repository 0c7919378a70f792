"""One pass over a log with plain dicts: the examples, labels, snapshots and outcomes that docs/semantics.md defines.

It is neither fast nor clever and shares no code with the stages, so that a misunderstanding would have to be made
twice to go unnoticed. Times are in milliseconds.
"""

from collections.abc import Iterable
from typing import Any

from testkit.oracle.clock import Clock
from testkit.oracle.contract import normalise, partition_of, read_line

HOUR = 3_600_000
WINDOW = 120_000
LATENESS = 5_000
TTL = 90 * 24 * HOUR
HISTORY_CLICKS = 50
QUERY_CLICKS = 64
CLICK_ACTIONS = ("click",)
HALF_LIVES = (6 * HOUR, 24 * HOUR, 7 * 24 * HOUR)
OUTCOME_KINDS = {"impression": "pages", "click": "clicks"}
SNAPSHOT_FIELDS = ("history", "query_clicks", "query_decayed")

Page = dict[str, Any]
Task = dict[str, Any]


def expected_replay(
    lines: Iterable[bytes],
    partitions: int,
    *,
    flush: bool = True,
    snapshots: bool = False,
    settled_at: int | None = None,
) -> dict[str, Any]:
    """Return the output of a replay of these lines.

    It has `examples` (as in an examples file, in the total order), `outcomes`, `dead` (the bytes of every dead letter)
    and, on request, `snapshots`: for each example `history`, the last 50 clicks as (ts, request_id, item_id),
    `query_clicks`, the last 64 as (ts, item_id, level), and `query_decayed`, for each half-life [impressions, clicks]
    by level.
    With `settled_at`, the clocks have come to that time before the log begins.
    """
    tasks = [_new_task(settled_at) for _ in range(partitions)]
    outcomes = _no_outcomes()
    dead: list[bytes] = []
    for line in lines:
        kind, event = read_line(line)
        task = tasks[0 if event is None else partition_of(event["user_id"], partitions)]
        _take(task, kind, event, line, outcomes, dead)
    _finish(tasks, outcomes, flush=flush)
    emitted_pages = sorted((page for task in tasks for page in task["emitted"]), key=_close_order)
    outcomes["pages"]["emitted"] = len(emitted_pages)
    examples = _with_query_aggregates(emitted_pages, snapshots=snapshots)
    result = {"examples": examples, "outcomes": outcomes, "dead": dead}
    if snapshots:
        result["snapshots"] = [{name: page[name] for name in SNAPSHOT_FIELDS} for page in emitted_pages]
    return result


def expected_outcomes(
    records: Iterable[tuple[Any, str, dict[str, Any] | None]],
) -> tuple[dict[str, Any], list[Any]]:
    """Return the outcomes of one partition that is read to its end and flushed, and the dead letters.

    records: of each its name, by which a dead letter is known, its kind, and its fields if it is valid.
    """
    task, outcomes = _new_task(None), _no_outcomes()
    dead: list[Any] = []
    for name, kind, event in records:
        _take(task, kind, event, name, outcomes, dead)
    _finish([task], outcomes, flush=True)
    outcomes["pages"]["emitted"] = len(task["emitted"])
    return outcomes, dead


def _take(
    task: Task, kind: str, event: dict[str, Any] | None, name: Any, outcomes: dict[str, Any], dead: list[Any]
) -> None:
    """Count a record, and process it if it is valid."""
    if kind == "unreadable":
        outcomes["unreadable"] += 1
    else:
        outcomes[OUTCOME_KINDS[kind]]["in"] += 1
    if event is not None:
        _process(task, event | {"kind": kind, "line": name}, outcomes, dead)
        return
    dead.append(name)
    if kind != "unreadable":
        outcomes[OUTCOME_KINDS[kind]]["dead_letter"] += 1


def _finish(tasks: list[Task], outcomes: dict[str, Any], *, flush: bool) -> None:
    """Count what is pending at the end, after a flush if there is one."""
    if flush:
        for task in tasks:
            _flush(task, outcomes)
    outcomes["pages"]["open"] = sum(len(task["open"]) for task in tasks)
    outcomes["clicks"]["waiting"] = sum(len(clicks) for task in tasks for clicks in task["waiting"].values())


def _new_task(settled_at: int | None) -> Task:
    return {
        "clock": Clock(settled_at),
        "watermark": None,
        "future_events": [],  # {event, progress of the clock at its arrival}
        "open": {},  # (user_id, request_id): page
        "closed": {},  # the same, kept for an hour
        "waiting": {},  # (user_id, request_id): clicks in order of arrival
        "users": {},  # user_id: {clicks, folded, queue, totals, last}
        "open_times": {},  # user_id: ts of each of the user's pending pages
        "emitted": [],
    }


def _no_outcomes() -> dict[str, Any]:
    return {
        "pages": dict.fromkeys(("in", "emitted", "open", "empty", "duplicate", "dead_letter"), 0),
        "clicks": dict.fromkeys(
            ("in", "joined", "duplicate", "late", "orphan", "foreign", "waiting", "other_action", "dead_letter"), 0
        ),
        "unreadable": 0,
    }


def _close_order(page: Page) -> tuple[int, bytes, bytes]:
    return page["close"], page["request_id"].encode(), page["user_id"].encode()


# --- one record ---------------------------------------------------------------------------------------------


def _process(task: Task, event: dict[str, Any], outcomes: dict[str, Any], dead_letters: list[bytes]) -> None:
    clock: Clock = task["clock"]
    is_future = clock.see(event["ts"], event["user_id"])
    watermark = clock.watermark
    if watermark != task["watermark"]:
        task["watermark"] = watermark
        _expire_future_events(task, outcomes, dead_letters)
        _close_pages(task, watermark)
        _orphan_clicks(task, watermark, outcomes)
    if event["kind"] == "impression":
        _on_page(task, event, watermark, outcomes, dead_letters)
    else:
        _on_click(task, event, watermark, outcomes)
    if is_future:
        task["future_events"].append({"event": event, "progress": clock.progress})


def _expire_future_events(task: Task, out: dict[str, Any], dead: list[bytes]) -> None:
    unexpired: list[dict[str, Any]] = []
    for future_event in task["future_events"]:
        if task["clock"].progress < future_event["progress"] + HOUR:
            unexpired.append(future_event)
            continue
        event = future_event["event"]
        if not task["clock"].is_ahead(event["ts"]):
            continue  # the accepted time has come within reach of it meanwhile
        key = (event["user_id"], event["request_id"])
        if task["open"].get(key) is event:
            _remove_open_page(task, event)
            out["pages"]["dead_letter"] += 1
            dead.append(event["line"])
            _trim_history(task, event["user_id"])
        elif any(click is event for click in task["waiting"].get(key, ())):
            _remove_pending_click(task, key, event)
            out["clicks"]["dead_letter"] += 1
            dead.append(event["line"])
    task["future_events"] = unexpired


def _remove_pending_click(task: Task, key: tuple[str, str], event: dict[str, Any]) -> None:
    remaining = [click for click in task["waiting"][key] if click is not event]
    if remaining:
        task["waiting"][key] = remaining
    else:
        del task["waiting"][key]


def _orphan_clicks(task: Task, watermark: float, out: dict[str, Any]) -> None:
    for key in list(task["waiting"]):
        for click in list(task["waiting"][key]):
            if click["ts"] + WINDOW <= watermark:
                _remove_pending_click(task, key, click)
                out["clicks"]["orphan"] += 1


def _on_page(task: Task, page: Page, watermark: float, out: dict[str, Any], dead: list[bytes]) -> None:
    if not page["items"]:
        out["pages"]["empty"] += 1
        return
    key = (page["user_id"], page["request_id"])
    known = task["open"].get(key) or _recently_closed(task, key, watermark)
    if known is not None:
        if _content(known) == _content(page):
            out["pages"]["duplicate"] += 1
        else:
            out["pages"]["dead_letter"] += 1
            dead.append(page["line"])
        return
    page["close"] = max(page["ts"] + WINDOW, watermark + 1)
    page["joined"] = {}
    task["open"][key] = page
    task["open_times"].setdefault(page["user_id"], []).append(page["ts"])
    for click in task["waiting"].pop(key, ()):
        _join(task, page, click, out)


def _recently_closed(task: Task, key: tuple[str, str], watermark: float) -> Page | None:
    page = task["closed"].get(key)
    return page if page is not None and watermark < page["close"] + HOUR else None


def _content(page: Page) -> dict[str, Any]:
    return {name: page[name] for name in ("request_id", "user_id", "query", "ts", "items", "context", "features")}


def _on_click(task: Task, click: dict[str, Any], watermark: float, out: dict[str, Any]) -> None:
    if click["action"] not in CLICK_ACTIONS:
        out["clicks"]["other_action"] += 1
        return
    key = (click["user_id"], click["request_id"])
    if key in task["open"]:
        _join(task, task["open"][key], click, out)
    elif _recently_closed(task, key, watermark):
        out["clicks"]["late"] += 1
    elif click["ts"] + WINDOW <= watermark:
        out["clicks"]["orphan"] += 1
    else:
        task["waiting"].setdefault(key, []).append(click)


def _join(task: Task, page: Page, click: dict[str, Any], out: dict[str, Any]) -> None:
    matching_positions = [
        position for position, item in enumerate(page["items"]) if item["item_id"] == click["item_id"]
    ]
    if not matching_positions:
        out["clicks"]["foreign"] += 1
    elif matching_positions[0] in page["joined"]:
        out["clicks"]["duplicate"] += 1
    elif click["ts"] > page["ts"] + WINDOW:
        out["clicks"]["late"] += 1
    else:
        out["clicks"]["joined"] += 1
        page["joined"][matching_positions[0]] = click
        if task["clock"].is_ahead(click["ts"]):
            # Too far ahead: no update until its page closes, so that a bad clock expires no entry.
            user = task["users"].setdefault(click["user_id"], _new_user([]))
        else:
            user = _user(task, click["user_id"], click["ts"])
        user["clicks"].append((click["ts"], click["request_id"], click["item_id"]))
        user["clicks"].sort()
        _trim_history(task, click["user_id"])


# --- closing ------------------------------------------------------------------------------------------------


def _close_pages(task: Task, watermark: float) -> None:
    due = [page for page in task["open"].values() if page["close"] <= watermark]
    for page in sorted(due, key=_close_order):
        _emit(task, page)


def _flush(task: Task, out: dict[str, Any]) -> None:
    for page in sorted(task["open"].values(), key=_close_order):
        _emit(task, page)
    out["clicks"]["orphan"] += sum(len(clicks) for clicks in task["waiting"].values())
    task["waiting"] = {}


def _emit(task: Task, page: Page) -> None:
    key = (page["user_id"], page["request_id"])
    user = _user(task, page["user_id"], page["ts"])
    user["last"] = max(user["last"], *(click["ts"] for click in page["joined"].values()), page["ts"])
    before = [click for click in user["clicks"] if click[0] < page["ts"]]
    page["history"] = before[-HISTORY_CLICKS:]
    page["user_activity"] = user["folded"] + len(before)
    page["user_stats"] = _apply_closed_then_queue(user, page)
    _remove_open_page(task, page)
    task["closed"][key] = page
    task["emitted"].append(page)
    _trim_history(task, page["user_id"])


def _remove_open_page(task: Task, page: Page) -> None:
    del task["open"][page["user_id"], page["request_id"]]
    task["open_times"][page["user_id"]].remove(page["ts"])


def _user(task: Task, user_id: str, time: int) -> dict[str, Any]:
    """Return the user's entry as of a record's time: a new one if it is older than its time to live."""
    user: dict[str, Any] = task["users"].setdefault(user_id, _new_user([]))
    if user["last"] >= 0 and time - user["last"] > TTL:
        user = task["users"][user_id] = _new_user([click for click in user["clicks"] if click[0] >= time])
    user["last"] = max(user["last"], time)
    return user


def _new_user(clicks: list[tuple[int, str, str]]) -> dict[str, Any]:
    return {"clicks": clicks, "folded": 0, "queue": [], "totals": _no_totals(), "last": -1}


def _trim_history(task: Task, user_id: str) -> None:
    """Keep the clicks not older than the user's oldest pending page, and the 50 before those."""
    user = task["users"].get(user_id)
    if user is None:
        return
    oldest = min(task["open_times"].get(user_id, ()), default=None)
    older = sum(1 for click in user["clicks"] if oldest is None or click[0] < oldest)
    excess = max(0, older - HISTORY_CLICKS)
    user["folded"] += excess
    del user["clicks"][:excess]


# --- aggregates ---------------------------------------------------------------------------------------------


def _no_totals() -> dict[str, list[int]]:
    return {level: [0, 0] for level in "1234"}


def _apply_closed_then_queue(entry: dict[str, Any], page: Page) -> dict[str, list[int]]:
    """Apply every queued page that had closed by this page's ts, read the totals, then queue this page."""
    still_open = []
    for earlier in entry["queue"]:
        if earlier["close"] > page["ts"]:
            still_open.append(earlier)
            continue
        for position, item in enumerate(earlier["items"]):
            entry["totals"][str(item["relevance"])][0] += 1
            entry["totals"][str(item["relevance"])][1] += position in earlier["joined"]
    entry["queue"] = [*still_open, page]
    return {level: list(counts) for level, counts in entry["totals"].items()}


def _with_query_aggregates(closed: list[Page], *, snapshots: bool) -> list[dict[str, Any]]:
    queries: dict[str, dict[str, Any]] = {}
    examples = []
    for page in closed:
        query = normalise(page["query"])
        entry = queries.get(query)
        if entry is None or page["ts"] - entry["last"] > TTL:
            entry = queries[query] = {"queue": [], "totals": _no_totals(), "folded": []}
        entry["last"] = page["close"]
        entry["folded"] += [earlier for earlier in entry["queue"] if earlier["close"] <= page["ts"]]
        query_stats = _apply_closed_then_queue(entry, page)
        if snapshots:
            clicks = [click for earlier in entry["folded"] for click in _clicks_of(earlier)]
            page["query_clicks"] = clicks[-QUERY_CLICKS:]
            page["query_decayed"] = [_decayed(entry["folded"], page["ts"], half_life) for half_life in HALF_LIVES]
        items = [
            {"item_id": item["item_id"], "click": int(position in page["joined"]), "relevance": item["relevance"]}
            for position, item in enumerate(page["items"])
        ]
        examples.append(
            {
                "request_id": page["request_id"],
                "user_id": page["user_id"],
                "query": query,
                "ts": page["ts"],
                "items": items,
                "query_stats": query_stats,
                "user_stats": page["user_stats"],
                "user_activity": page["user_activity"],
            }
        )
    return examples


def _clicks_of(page: Page) -> list[tuple[int, str, int]]:
    return sorted(
        (c["ts"], c["item_id"], page["items"][position]["relevance"]) for position, c in page["joined"].items()
    )


def _decayed(closed_pages: list[Page], ts: int, half_life: int) -> dict[str, list[float]]:
    """Sum the pages' counts, halved per half-life since they closed; for a late page the future is not undone."""
    now = max([ts, *(page["close"] for page in closed_pages)])
    sums = {level: [0.0, 0.0] for level in "1234"}
    for page in closed_pages:
        weight = 2.0 ** ((page["close"] - now) / half_life)
        for position, item in enumerate(page["items"]):
            sums[str(item["relevance"])][0] += weight
            sums[str(item["relevance"])][1] += weight * (position in page["joined"])
    return sums
