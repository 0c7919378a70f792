"""The parts that `prectr` and `prectr-v2` are made of, and the switches that turn them off."""

from dataclasses import dataclass
from typing import Final

from prectr.model.config import TrainerConfig

SWITCHES_V2: Final = frozenset(
    {"cold-start", "debias", "consistency", "two-stage", "incentive", "pretraining", "aggregates"}
)
SWITCHES: Final = frozenset({"consistency", "two-stage", "incentive", "aggregates"})


@dataclass(frozen=True, slots=True)
class Components:
    """Which parts of the model there are; every switch of `--without` turns off exactly one.

    joint: the encoder learns from clicks. cold_start: what all users did for the query: its aggregates (how often each
    level was shown for it among them, which `prior_adjustment` takes up), the attention over its last clicks, and a weight of
    each item under it. exposure: a part of that, how often and how high each item was shown for it. debias: hard
    negatives and `prior_adjustment`. consistency: the order of the conditional click probabilities, and the anchor to stage one.
    two_stage: the level head starts as stage one left it, its graded pairs are learned again, and the anchor.
    incentive: τ. pretraining: the encoder's weights at the start. aggregates: all click rates by level, of query, user
    and category.
    """

    joint_training: bool
    cold_start: bool
    debias: bool
    consistency: bool
    two_stage: bool
    incentive: bool
    pretraining: bool
    aggregates: bool
    exposure: bool


def components_of(config: TrainerConfig) -> Components:
    """The parts that the configuration leaves."""
    is_v2 = config.model == "prectr-v2"
    without = frozenset(config.without)
    return Components(
        joint_training=is_v2,
        cold_start=is_v2 and "cold-start" not in without,
        debias=is_v2 and "debias" not in without,
        consistency="consistency" not in without,
        two_stage="two-stage" not in without,
        incentive="incentive" not in without,
        pretraining="pretraining" not in without,
        aggregates="aggregates" not in without,
        exposure=is_v2 and "cold-start" not in without and config.exposure != "off",
    )
