"""The settings that decide what the stages put out; part of every store's and checkpoint's identity."""

from dataclasses import dataclass
from typing import Literal

LabellerName = Literal["lexical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """Settings of the two stages. Durations are in seconds, in configuration as in the environment."""

    partitions: int = 4
    """Tasks a stage: user ids and queries are hashed to this many partitions."""
    attribution_window: float = 120.0
    """A click within this time of its page is its label."""
    allowed_lateness: float = 5.0
    """How far the watermark stays behind the largest accepted event time."""
    max_clock_skew: float = 3600.0
    """An event further ahead than this moves no watermark until another user confirms its time."""
    dedup_retention: float = 3600.0
    """How long a closed page's id is remembered, to tell late clicks and duplicates."""
    history_clicks: int = 50
    """Clicks of the user that a page's snapshot holds."""
    query_clicks: int = 64
    """Clicks of all users under the query that a page's snapshot holds."""
    half_life: float = 7 * 86400.0
    """Half-life of the decayed aggregates, in event time."""
    user_ttl: float = 90 * 86400.0
    """A user's entry is absent for a record that much later than its last update."""
    query_ttl: float = 90 * 86400.0
    """A query's entry is absent for a record that much later than its last update."""
    labeller: LabellerName = "lexical"
    """What fills a missing relevance level."""
