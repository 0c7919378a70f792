"""What a report says about the custom features of a model."""

import msgspec

from prectr.model.features.feature_slots import Kind
from prectr.model.features.observed_features import Source


class FeatureSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A custom feature that a model reads.

    values: items, or pages, that have it. missing: those that do not, from the start of the log on. least, greatest:
    of a number. importance: rise of the log loss, nats per impression, if its values are permuted
    (`PermutationImportance`); importance_error: its standard error; importance_impressions: those that it was measured
    on. Null where not measured.
    """

    source: Source
    name: str
    kind: Kind
    values: int
    missing: int
    least: float | None
    greatest: float | None
    importance: float | None
    importance_error: float | None
    importance_impressions: int


class FeaturesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The custom features of a log, as a model reads them.

    read: in the order first seen. ignored: values of those without a slot, because the settings do not name them or
    `feature_limit` was reached: by source and name, the first 32 of each source.
    """

    read: list[FeatureSummary]
    ignored: dict[Source, dict[str, int]]
