"""One round after the other: which exporters are there, how fast things go, and how quality has moved meanwhile."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from prectr.ops.metrics.quality import WHOLE_RUN
from prectr.ops.monitor.current_quality import READING
from prectr.ops.top.scrape import Answer, Asked, MonitorAnswer, ask
from prectr.ops.top.stats import SEGMENTS, ExporterState, Figures, Pair, figures, kind_of

_RATE_SECONDS: Final = 30.0
"""What is said to be a second is the mean over so many."""
_KEPT_POINTS: Final = 48


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """A round of questions. a_second: of records by name. lines: AUC and GAUC by (model, segment), oldest first.

    span: what the lines show, in words.
    """

    figures: Figures
    a_second: dict[str, float]
    lines: dict[tuple[str, str], list[Pair]]
    span: dict[str, str]


class Watching:
    """Asks again and again; remembers what it takes to say what has changed."""

    def __init__(
        self,
        exporters: Sequence[str],
        monitor: str,
        *,
        named: bool,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Watch these addresses.

        named: whether a person has named the exporters: then each is shown from the start; else those that have
        answered once. seconds: each of them has to answer. clock: seconds since the epoch.
        """
        self._exporters = list(dict.fromkeys(exporters))
        self._monitor = monitor
        self._seconds = seconds
        self._clock = clock
        self._known: dict[str, tuple[str, float | None]] = {}
        if named:
            self._known = dict.fromkeys(self._exporters, ("", None))
        self._monitor_heard: float | None = None
        self._counts: deque[tuple[float, dict[str, int]]] = deque()
        self._own: dict[tuple[str, str], deque[Pair]] = {}

    def round(self) -> Round:
        """Ask all of them once."""
        asked = ask(self._exporters, self._monitor, seconds=self._seconds, at=self._clock())
        now = figures(asked, [*self._exporter_states(asked), *self._monitor_state(asked.at, asked.monitor)])
        self._remember(now)
        lines, span = {}, {}
        for model in now.models:
            by_monitor = any(model.timeline.values())
            span[model.model] = "last 24 h" if by_monitor else "meanwhile"
            for segment in SEGMENTS:
                own = list(self._own.get((model.model, segment), ()))
                lines[model.model, segment] = model.timeline[segment] if by_monitor else own
        return Round(figures=now, a_second=self._rates(), lines=lines, span=span)

    def _exporter_states(self, asked: Asked) -> list[ExporterState]:
        for answer in asked.exporters:
            if answer.samples is not None:
                known, _ = self._known.get(answer.url, ("", None))
                self._known[answer.url] = (kind_of(answer.samples) or known, asked.at)
        answers = {answer.url: answer for answer in asked.exporters}
        # In the order of the addresses, however they came.
        return [self._exporter(answers[url], asked.at) for url in self._exporters if url in self._known]

    def _exporter(self, answer: Answer, at: float) -> ExporterState:
        kind, heard = self._known[answer.url]
        there = answer.samples is not None
        return ExporterState(
            url=answer.url,
            kind=kind,
            answers=there,
            trouble=answer.trouble,
            away_seconds=None if there or heard is None else max(0.0, at - heard),
        )

    def _monitor_state(self, at: float, answer: MonitorAnswer) -> list[ExporterState]:
        now = answer.now
        if now is not None:
            self._monitor_heard = at
        heard = self._monitor_heard
        return [
            ExporterState(
                url=answer.url,
                kind="monitor's page",
                answers=now is not None,
                trouble=answer.trouble if now is None else "" if now.standing == READING else now.standing,
                away_seconds=None if now is not None or heard is None else max(0.0, at - heard),
            )
        ]

    def _remember(self, now: Figures) -> None:
        counts = {"in": now.pages.get("in"), "emitted": now.pages.get("emitted"), "clicks": now.clicks.get("in")}
        counts |= {f"learned {model.model}": model.trained_pages for model in now.models}
        self._counts.append((now.at, {name: count for name, count in counts.items() if count is not None}))
        while len(self._counts) > 2 and now.at - self._counts[1][0] >= _RATE_SECONDS:
            self._counts.popleft()
        for model in now.models:
            for segment in SEGMENTS:
                windows = model.quality[segment]
                pair = windows.get("5m") or windows.get(WHOLE_RUN)
                line = self._own.setdefault((model.model, segment), deque(maxlen=_KEPT_POINTS))
                if pair is not None and (not line or line[-1] != pair):
                    line.append(pair)

    def _rates(self) -> dict[str, float]:
        """Of what both ends of the last half minute tell; none of what went back, since its process began anew."""
        (since, first), (until, last) = self._counts[0], self._counts[-1]
        if until <= since:
            return {}
        return {
            name: (count - first[name]) / (until - since)
            for name, count in last.items()
            if name in first and count >= first[name]
        }
