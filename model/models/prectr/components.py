"""The parts that `prectr` and `prectr-v2` are made of, and the switches that turn them off."""

from dataclasses import dataclass
from typing import Final

from prectr.model.config import TrainerConfig

SWITCHES_V2: Final = frozenset(
    {"cold-start", "debias", "consistency", "two-stage", "incentive", "pretraining", "aggregates"}
)
SWITCHES: Final = frozenset({"consistency", "two-stage", "incentive", "aggregates"})


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of the model there are; every switch of `--without` turns off exactly one.

    joint: the encoder learns from clicks. cold_start: what all users did for the query: its aggregates (how often each
    level was shown for it among them, which `shift` takes up), the attention over its last clicks, and a weight of
    each item under it. exposure: a part of that, how often and how high each item was shown for it. debias: hard
    negatives and `shift`. consistency: the order of the conditional click probabilities, and the anchor to stage one.
    two_stage: the level head starts as stage one left it, its graded pairs are learned again, and the anchor.
    incentive: τ. pretraining: the encoder's weights at the start. aggregates: all click rates by level, of query, user
    and category.
    """

    joint: bool
    cold_start: bool
    debias: bool
    consistency: bool
    two_stage: bool
    incentive: bool
    pretraining: bool
    aggregates: bool
    exposure: bool


def parts_of(config: TrainerConfig) -> Parts:
    """The parts that the configuration leaves."""
    second = config.model == "prectr-v2"
    without = frozenset(config.without)
    return Parts(
        joint=second,
        cold_start=second and "cold-start" not in without,
        debias=second and "debias" not in without,
        consistency="consistency" not in without,
        two_stage="two-stage" not in without,
        incentive="incentive" not in without,
        pretraining="pretraining" not in without,
        aggregates="aggregates" not in without,
        exposure=second and "cold-start" not in without and config.exposure != "off",
    )
