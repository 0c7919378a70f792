"""Logs of users whose clocks are wrong, of nights, and of partitions where little happens."""

import json
from collections.abc import Callable, Iterable
from random import Random

from tests.kit.stages.events import HOUR, SECOND, T, click, page

Lead = Callable[[int, int], int]
"""How far, in ms, the clock of a user is ahead at the page of a number."""


def no_lead(user: int, number: int) -> int:
    return 0


def visits(pages: int, gap: int, users: int = 12, lead: Lead = no_lead) -> list[bytes]:
    """A page every `gap` ms of one user after the other, and a click on it five seconds later, in order of arrival."""
    lines = []
    for number in range(pages):
        user = number % users
        ts = T + number * gap + lead(user, number)
        lines += [page(f"r{number}", f"u{user}", ts), click(f"r{number}", f"u{user}", ts + 5 * SECOND)]
    return lines


def small_log(lead: Lead = no_lead) -> list[bytes]:
    """Half an hour: 60 pages."""
    return visits(60, 30 * SECOND, lead=lead)


def six_hours(lead: Lead = no_lead) -> list[bytes]:
    """180 pages."""
    return visits(180, 120 * SECOND, lead=lead)


def ahead(users: Iterable[int], lead: int) -> Lead:
    """The clocks of these users are ahead by as much, always."""
    wrong = frozenset(users)
    return lambda user, number: lead if user in wrong else 0


def clock_world(seed: int, pages: int = 150) -> list[bytes]:
    """A log of some users, some of whom are ahead, with nights, bursts, disorder and clicks before their pages."""
    rng = Random(seed)
    users = rng.choice([1, 2, 3, 5, 12, 40, 100])
    gap = rng.choice([1, 30, 300, 3000, 4000, 7200]) * SECOND
    share = rng.choice([0.0, 0.1, 0.3, 0.5])
    leads = [rng.choice([HOUR // 4, HOUR, HOUR + 1, 2 * HOUR, 8 * HOUR, 80_000 * HOUR]) for _ in range(users)]
    leads = [lead if rng.random() < share else 0 for lead in leads]
    wrong_until = rng.choice([0, 0, 3, 30])
    now, lines = T, []
    for number in range(pages):
        now += int(rng.expovariate(1 / gap)) + (rng.randrange(30) * HOUR if rng.random() < 0.02 else 0)
        user = rng.randrange(users)
        lead = 8 * HOUR if number < wrong_until else leads[user]
        burst = rng.choice([1, 1, 1, 1, 6])
        for visit in range(burst):
            ts = now + lead + visit * rng.choice([0, 700, HOUR // 3])
            name, request = f"u{user}", f"r{number}.{visit}"
            lines.append((now, page(request, name, ts)))
            wait = rng.choice([-SECOND, SECOND, 9 * SECOND, 130 * SECOND])
            lines.append((now + rng.choice([-SECOND, wait]), click(request, name, ts + wait)))
    return [line for _, line in sorted(lines, key=lambda line: line[0])]


def times_of(lines: Iterable[bytes]) -> list[tuple[int, str]]:
    """(ts, user_id) of each event."""
    events = [json.loads(line) for line in lines]
    return [(event["ts"], event["user_id"]) for event in events]
