"""The settings that decide what the stages emit; part of the identity of every store and checkpoint."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from prectr.state.aggregates import MAX_HALF_LIVES
from prectr.state.setting import YEAR, Setting
from prectr.stream.events.contract import DEFAULT_ACTION

LabellerName = Literal["lexical"]
MAX_PARTITIONS: Final = 1024
MAX_CLICK_LIST: Final = 1000
"""Clicks at most in a history of an example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """Settings of the stages `join` and `aggregate`. Durations are in seconds of event time."""

    partitions: Annotated[
        int,
        Setting(
            help="Tasks of each stage: users and queries are hashed to this many partitions. Part of the result.",
            ge=1,
            le=MAX_PARTITIONS,
        ),
    ] = 4
    attribution_window: Annotated[
        float,
        Setting(help="A click up to this long after its page is a label of the page.", unit="s", ge=0.001, le=YEAR),
    ] = 120.0
    allowed_lateness: Annotated[
        float,
        Setting(
            help="How far the watermark stays behind the event time that the partition has come to.",
            unit="s",
            ge=0,
            le=YEAR,
        ),
    ] = 5.0
    max_clock_skew: Annotated[
        float,
        Setting(
            help="An event more than this ahead of most users does not advance the watermark, and is a dead letter "
            "unless the stream comes within reach of its time.",
            unit="s",
            ge=0.001,
            le=YEAR,
        ),
    ] = 3600.0
    click_actions: Annotated[
        tuple[str, ...],
        Setting(help="The actions that are clicks; events with another action are counted and go no further."),
    ] = (DEFAULT_ACTION,)
    dedup_retention: Annotated[
        float,
        Setting(
            help="How long the id of a closed page is kept, so that late clicks and duplicates are recognised.",
            unit="s",
            ge=0,
            le=YEAR,
        ),
    ] = 3600.0
    history_clicks: Annotated[
        int, Setting(help="Clicks of the user in a page's training example, the newest.", ge=0, le=MAX_CLICK_LIST)
    ] = 50
    query_clicks: Annotated[
        int,
        Setting(
            help="Clicks of all users of the query in a page's training example, the newest.", ge=0, le=MAX_CLICK_LIST
        ),
    ] = 64
    half_lives: Annotated[
        tuple[float, ...],
        Setting(
            help="Half-lives of the decayed aggregates, rising: one sum per query and level for each.",
            unit="s",
            ge=0.001,
            le=100 * YEAR,
            max_length=MAX_HALF_LIVES,
            rising=True,
        ),
    ] = (6 * 3600.0, 86400.0, 7 * 86400.0)
    user_ttl: Annotated[
        float,
        Setting(
            help="A user's state expires when this time has passed since its last update.",
            unit="s",
            ge=0.001,
            le=100 * YEAR,
        ),
    ] = 90 * 86400.0
    query_ttl: Annotated[
        float,
        Setting(
            help="A query's state expires when this time has passed since its last update.",
            unit="s",
            ge=0.001,
            le=100 * YEAR,
        ),
    ] = 90 * 86400.0
    labeller: Annotated[
        LabellerName,
        Setting(
            help="Supplies the relevance level of an item that is logged without one.", choices=get_args(LabellerName)
        ),
    ] = "lexical"
