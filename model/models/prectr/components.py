"""The components of `prectr` and `prectr-v2`, and the switches that turn them off."""

from dataclasses import dataclass
from typing import Final

from prectr.model.config import TrainerConfig

SWITCHES_V2: Final = frozenset(
    {"cold-start", "debias", "consistency", "two-stage", "incentive", "pretraining", "aggregates"}
)
SWITCHES: Final = frozenset({"consistency", "two-stage", "incentive", "aggregates"})


@dataclass(frozen=True, slots=True)
class Components:
    """The components that a model has; each switch of `without` turns off exactly one."""

    joint_training: bool
    """The encoder learns from clicks."""
    cold_start: bool
    """The behaviour of all users for the query: its aggregates (among them the level frequencies of its exposed
    items, which `prior_adjustment` uses), attention over its last clicks, and a weight of each item under it."""
    debias: bool
    """Hard negatives and `prior_adjustment`."""
    consistency: bool
    """Monotonicity of the conditional click probabilities, and the KL regularisation towards stage one."""
    two_stage: bool
    """The level head starts from stage one, whose graded pairs are rehearsed; and the KL regularisation."""
    incentive: bool
    """τ."""
    pretraining: bool
    """The encoder starts from its pre-trained weights."""
    aggregates: bool
    """All click rates by level: of query, user and category."""
    exposure: bool
    """A part of cold-start mining: how often and how high each item was shown for the query."""

    @property
    def query_aggregates(self) -> bool:
        """Whether the aggregates of the query are read."""
        return self.aggregates and self.cold_start

    @property
    def aggregate_sources(self) -> int:
        """How many of query and user give aggregate features, 0 to 2."""
        return self.aggregates + self.query_aggregates

    @property
    def stage_one_kl(self) -> bool:
        """Whether the level distribution is regularised towards stage one."""
        return self.consistency and self.two_stage and self.pretraining


def components_of(config: TrainerConfig) -> Components:
    """The components that the configuration leaves on."""
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
