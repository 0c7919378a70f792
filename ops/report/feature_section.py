"""The section on custom features: how often each is there, and its importance to each model."""

from collections.abc import Sequence

from prectr.model.features.feature_summary import FeaturesSummary, FeatureSummary
from prectr.ops.report.markup import Markup, join, stat, tag
from prectr.ops.report.numbers import count, fixed, percent, ratio
from prectr.ops.report.schema import ModelReport, Report

_DECIMALS = 4


def custom_features(report: Report) -> Markup:
    """The custom features of a log; empty if it has none."""
    found = [(index, model) for index, model in enumerate(report.models) if model.features is not None]
    if not found or not (_features(found[0][1]).read or _features(found[0][1]).ignored):
        return Markup("")
    note = (
        "Missing is the share of items (of pages, for features of a page or context) without the value. Permutation "
        "importance is the rise of the log loss of an impression, in nats, if the values are permuted among the items "
        "of a page, or among the pages of a batch: measured on some batches before they are learned from, ± standard "
        "error. A feature that repeats another one, or what the item's id already says, has little importance."
    )
    return tag(
        "section",
        tag("h2", "Custom features"),
        tag("p", note, class_="note"),
        tag("div", _table(found), class_="scroll"),
        _ignored(_features(found[0][1])),
    )


def _table(models: Sequence[tuple[int, ModelReport]]) -> Markup:
    """One row a feature; models read the same ones, since they read the same pages."""
    names = ["of", "kind", "values", "missing", "least", "greatest"]
    names += [f"importance to {model.model}" for _, model in models]
    head = [tag("th", "feature", scope="col", class_="name"), *(tag("th", name, scope="col") for name in names)]
    rows = []
    for place, feature in enumerate(_features(models[0][1]).read):
        path = f"models/{models[0][0]}/features/read/{place}"
        cells = [
            feature.source,
            feature.kind,
            stat(f"{path}/values", count(feature.values)),
            percent(ratio(feature.missing, feature.values + feature.missing)),
            "" if feature.least is None else f"{feature.least:.6g}",
            "" if feature.greatest is None else f"{feature.greatest:.6g}",
            *(
                _importance(f"models/{index}/features/read/{place}", _features(model).read[place])
                for index, model in models
            ),
        ]
        name = tag("th", tag("bdi", feature.name or "(empty)"), scope="row")
        rows.append(tag("tr", name, *(tag("td", cell) for cell in cells)))
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))


def _importance(path: str, feature: FeatureSummary) -> Markup:
    shown = stat(f"{path}/importance", fixed(feature.importance, _DECIMALS))
    if feature.importance_error is None:
        return shown
    return join(shown, " ± ", stat(f"{path}/importance_error", fixed(feature.importance_error, _DECIMALS)))


def _ignored(features: FeaturesSummary) -> Markup:
    parts = [
        join(tag("bdi", name), f" ({source}, {count(values)} values)")
        for source, names in features.ignored.items()
        for name, values in names.items()
    ]
    if not parts:
        return Markup("")
    listed = [part if index == 0 else join(", ", part) for index, part in enumerate(parts)]
    return tag("p", "Not read, by the settings or feature_limit: ", *listed, ".", class_="note")


def _features(model: ModelReport) -> FeaturesSummary:
    assert model.features is not None
    return model.features
