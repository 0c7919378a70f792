"""The metrics of record outcomes: each page and each click has exactly one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.record_outcomes import (
    CLICKS,
    DEAD_LETTERS,
    EVENTS,
    PAGES,
    PENDING_CLICKS,
    PENDING_PAGES,
)
from prectr.stream.join.outcomes import Outcomes

Labels: TypeAlias = Sequence[str]


def outcome_metrics(outcomes: Sequence[tuple[Labels, Outcomes]], labels: Labels) -> Iterator[Metric]:
    """Records read, by type, and pages and clicks, by outcome.

    Args:
        outcomes: pairs of label values and counts, of each task or of all tasks.
        labels: the names of these labels.
    """
    yield EVENTS.metric(
        (
            ([*values, event_type], count)
            for values, counts in outcomes
            for event_type, count in (
                ("page", counts.pages.received),
                ("click", counts.clicks.received),
                ("unreadable", counts.unreadable),
            )
        ),
        [*labels, "type"],
    )
    yield PAGES.metric(
        _final_outcomes(((values, counts.pages) for values, counts in outcomes), ("received", "open")),
        [*labels, "outcome"],
    )
    yield CLICKS.metric(
        _final_outcomes(((values, counts.clicks) for values, counts in outcomes), ("received", "waiting")),
        [*labels, "outcome"],
    )
    yield PENDING_CLICKS.metric(((values, counts.clicks.waiting) for values, counts in outcomes), labels)
    yield PENDING_PAGES.metric(((values, counts.pages.open) for values, counts in outcomes), labels)


def dead_letter_metric(counts_by_reason: Iterable[tuple[Labels, Mapping[str, int]]], labels: Labels) -> Metric:
    """Dead letters by reason.

    Args:
        counts_by_reason: pairs of label values and counts, of each task or of all tasks.
        labels: the names of these labels.
    """
    return DEAD_LETTERS.metric(
        (([*values, reason], count) for values, counts in counts_by_reason for reason, count in counts.items()),
        [*labels, "reason"],
    )


def _final_outcomes(
    counts_by_labels: Iterable[tuple[Labels, msgspec.Struct]], excluded: tuple[str, ...]
) -> Iterator[tuple[list[str], float]]:
    """Counts that only grow. Excluded are pages and clicks that are still pending: their number is a gauge."""
    for values, counts in counts_by_labels:
        for outcome, count in msgspec.structs.asdict(counts).items():
            if outcome not in excluded:
                yield [*values, outcome], count
