"""The sections that say whether a model is good: against baselines and other models, over time, and by query."""

from collections.abc import Sequence
from typing import Final

from prectr.model.quality.learning_trend import LearningTrend
from prectr.model.quality.paired import Interval, PairedDifference
from prectr.model.quality.query_losses import MIN_WORST_PAGES, RankedQuery
from prectr.ops.report.comparison.words import METRIC_NAMES, interval_text, signed
from prectr.ops.report.markup import Markup, join, stat, tag
from prectr.ops.report.numbers import count, fixed
from prectr.ops.report.schema import ModelReport, Report

_RANKING_METRICS: Final = ("auc", "gauc")
_NOTE: Final = (
    "The model less each baseline and each other model, over the same pages, with 95 % intervals if pages, and below "
    "if users with all their pages, were redrawn (paired Poisson bootstrap, 100 replicates). Baselines need no "
    "model: the click rate of the position so far, the click rate of the item so far, and the order in which the items "
    "were shown. Bold where both intervals exclude 0. Scores include the position, so a page GAUC near the logged "
    "order's does not mean that ranking by the model would gain nothing."
)

_RERANKED: Final = (
    "An estimate from the log alone, of some of the pages: the items shown, in the order of the model's scores at "
    "position 1, with inverse propensity weights under a position-based model (Joachims et al. 2017). What a position "
    "is worth is estimated from queries and items that were shown at several positions (Agarwal et al. 2019). It means "
    "something only if a click depends on the position and the item, not on its neighbours, and if items moved for "
    "reasons unrelated to how attractive they were at that time. It says nothing of items that were not shown. Confirm "
    "it by an experiment."
)


def comparison(report: Report, number: int) -> Markup:
    """A model against baselines and other models, and whether it still learns; empty without either."""
    model = report.models[number]
    found = _differences(report, model.model)
    sentences = [*_against_baselines(report, found), *_trend(model.trend, f"models/{number}/trend")]
    if not found and not sentences:
        return Markup("")
    return tag(
        "section",
        tag("h2", f"Is {model.model} good?"),
        *(tag("p", sentence) for sentence in sentences),
        *([tag("p", _NOTE, class_="note"), tag("div", _table(report, found), class_="scroll")] if found else []),
    )


def _differences(report: Report, model: str) -> dict[tuple[str, str], tuple[PairedDifference, str]]:
    """The model less another one, by the other's name and the metric; and its path in the JSON, if it is there so."""
    found = {}
    for index, each in enumerate(report.differences):
        if each.first == model:
            found[each.second, each.metric] = (each, f"differences/{index}/difference")
        elif each.second == model:
            found[each.first, each.metric] = (_reversed(each), "")
    return found


def _reversed(each: PairedDifference) -> PairedDifference:
    return PairedDifference(
        first=each.second,
        second=each.first,
        metric=each.metric,
        difference=-each.difference,
        by_page=_negated(each.by_page),
        by_user=_negated(each.by_user),
    )


def _negated(interval: Interval | None) -> Interval | None:
    return None if interval is None else Interval(-interval.high, -interval.low)


def _against_baselines(report: Report, found: dict[tuple[str, str], tuple[PairedDifference, str]]) -> list[str]:
    """Say for each ranking metric how the model stands to the best baseline."""
    sentences = []
    for metric in _RANKING_METRICS:
        values = {baseline.model: getattr(baseline, metric) for baseline in report.baselines}
        named = {name: value for name, value in values.items() if value is not None and (name, metric) in found}
        if not named:
            continue
        best = max(named, key=lambda name: (named[name], name))
        each, _ = found[best, metric]
        verdict = "cannot be told from it" if not is_clear(each) else "better" if each.difference > 0 else "worse"
        shown = METRIC_NAMES[metric][0].upper() + METRIC_NAMES[metric][1:]
        sentences.append(f"{shown}: {signed(each.difference)} against {best}, the best baseline: {verdict}.")
    return sentences


def is_clear(each: PairedDifference) -> bool:
    """Whether both intervals exclude 0."""
    intervals = (each.by_page, each.by_user)
    return all(one is not None and (one.low > 0 or one.high < 0) for one in intervals)


def _trend(trend: LearningTrend | None, path: str) -> list[Markup]:
    if trend is None:
        return []
    what = "AUC less that of position alone" if trend.over_position else "AUC"
    words = {
        "rising": "still rises: more pages of this kind would help",
        "level": "neither clearly rises nor falls",
        "falling": "falls",
    }
    return [
        join(
            f"In the later half of the pages the {what} {words[trend.verdict]}: ",
            stat(f"{path}/slope", signed(trend.slope)),
            f" per doubling of the pages (95 %: {signed(trend.low)} … {signed(trend.high)}, {trend.points} points).",
        )
    ]


def _table(report: Report, found: dict[tuple[str, str], tuple[PairedDifference, str]]) -> Markup:
    names = [*(baseline.model for baseline in report.baselines), *(model.model for model in report.models)]
    heads = ["less", *(f"{METRIC_NAMES[metric]}, difference" for metric in METRIC_NAMES)]
    rows = []
    for name in names:
        if any((name, metric) in found for metric in METRIC_NAMES):
            cells = [_cell(found.get((name, metric))) for metric in METRIC_NAMES]
            rows.append(tag("tr", tag("th", name, _own_values(report, name), scope="row"), *cells))
    head = [tag("th", text, scope="col", class_="name" if i == 0 else "") for i, text in enumerate(heads)]
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))


def _own_values(report: Report, name: str) -> Markup:
    """The figures of a baseline; those of models are in the table above."""
    for index, baseline in enumerate(report.baselines):
        if baseline.model == name:
            shown = [
                join(f"{METRIC_NAMES[metric]} ", stat(f"baselines/{index}/{metric}", fixed(getattr(baseline, metric))))
                for metric in METRIC_NAMES
            ]
            return tag("span", shown[0], ", ", shown[1], ", ", shown[2], class_="both")
    return Markup("")


def _cell(entry: tuple[PairedDifference, str] | None) -> Markup:
    if entry is None:
        return tag("td", "")
    each, path = entry
    shown = stat(path, signed(each.difference)) if path else join(signed(each.difference))
    return tag(
        "td",
        tag("b", shown) if is_clear(each) else shown,
        tag("span", f"pages {interval_text(each.by_page)}", class_="both"),
        tag("span", f"users {interval_text(each.by_user)}", class_="both"),
    )


def lost_queries(model: ModelReport, at: str) -> Markup:
    """The queries that lose the most, and those with the lowest page AUC; empty without any."""
    if not model.most_lost and not model.worst_queries:
        return Markup("")
    note = (
        "Lost is what clicks could be worth beyond the model's order: the ideal DCG of a page less that of its items "
        "by score, in units of a click at rank 1. Worst are the queries with the lowest page AUC, of those with at "
        f"least {MIN_WORST_PAGES} pages that have both clicked and unclicked items."
    )
    worst = ""
    if model.worst_queries:
        table = _queries(model.worst_queries, f"{at}/worst_queries")
        worst = join(tag("h3", "Worst queries"), tag("div", table, class_="scroll"))
    return tag(
        "section",
        tag("h2", "Queries that lose the most"),
        tag("p", note, class_="note"),
        tag("div", _queries(model.most_lost, f"{at}/most_lost"), class_="scroll"),
        worst,
    )


def reranked(model: ModelReport, at: str) -> Markup:
    """The offline estimate of the clicks in the model's order, or why there is none."""
    found = model.reranked
    if found is None:
        return Markup("")
    if found.refused is not None:
        shown = tag("p", f"No estimate: {found.refused}.")
    else:
        shown = tag(
            "p",
            stat(f"{at}/reranked/estimated", fixed(found.estimated)),
            " clicks per page in the model's order, ",
            stat(f"{at}/reranked/logged", fixed(found.logged)),
            " as shown: ",
            stat(f"{at}/reranked/gain", signed(found.gain)),
            f" (95 %: {interval_text(found.interval)}), from ",
            stat(f"{at}/reranked/clicks", count(found.clicks)),
            f" clicks, as many as {count(found.effective_clicks or 0.0)} of equal weight.",
        )
    return tag(
        "section", tag("h2", "Clicks in the model's order, estimated"), tag("p", _RERANKED, class_="note"), shown
    )


def _queries(queries: Sequence[RankedQuery], path: str, shown: int = 8) -> Markup:
    head = [tag("th", "query", scope="col", class_="name")]
    head += [tag("th", name, scope="col") for name in ("pages", "clicks", "lost", "page AUC")]
    rows = [
        tag(
            "tr",
            tag("th", tag("bdi", each.query or "(empty)"), scope="row"),
            tag("td", stat(f"{path}/{number}/pages", count(each.pages))),
            tag("td", stat(f"{path}/{number}/clicks", count(each.clicks))),
            tag("td", stat(f"{path}/{number}/lost", fixed(each.lost, 1))),
            tag("td", stat(f"{path}/{number}/page_auc", fixed(each.page_auc, 3))),
        )
        for number, each in enumerate(queries[:shown])
    ]
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
