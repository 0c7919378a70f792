"""The section on relevance inferred from text: P(level) beside the click probability."""

from collections.abc import Sequence
from typing import Final

from prectr.ops.report.levels import ItemLevels, LevelReport
from prectr.ops.report.markup import Markup, join, stat, tag
from prectr.ops.report.numbers import count, fixed, percent
from prectr.ops.report.schema import ModelReport, Report

_NAMES: Final = ("1 irrelevant", "2 weakly", "3 relevant", "4 strongly")
_NAME_COLUMNS: Final = ("item", "logged level")
"""Column heads that are left-aligned."""
_SHIPPED_ENCODERS: Final = ("auto", "shipped")
_DECIMALS: Final = 2
_TITLE_LENGTH: Final = 48
"""Maximum characters of a title; the full title is a tooltip."""


def inferred_levels(report: Report) -> Markup:
    """P(level) of each model that infers it; empty if none does."""
    found = [(index, model) for index, model in enumerate(report.models) if model.inferred_levels is not None]
    if not found:
        return Markup("")
    note = (
        "Relevance that the model infers from query and title, without seeing the logged level. For the last trained "
        "pages, at the positions shown."
    )
    if report.config.get("encoder") in _SHIPPED_ENCODERS:
        note += (
            " The shipped text encoder was trained on the grades of the Chorus catalogue, so on a log of that "
            "catalogue, such as the demo's, agreement is not an independent test."
        )
    return tag(
        "section",
        tag("h2", "Relevance as inferred from the text"),
        tag("p", note, class_="note"),
        *(_model_levels(f"models/{index}/inferred_levels", model) for index, model in found),
        _last_pages(*found[0]),
    )


def _model_levels(path: str, model: ModelReport) -> Markup:
    levels = _levels(model)
    head = tag("tr", *(_head(name) for name in ("logged level", *(f"P({name})" for name in _NAMES), "impressions")))
    rows = [
        tag(
            "tr",
            tag("th", _NAMES[int(logged) - 1], scope="row"),
            *(
                tag("td", stat(f"{path}/by_logged/{logged}/levels/{level}", fixed(probability, _DECIMALS)))
                for level, probability in summary.levels.items()
            ),
            tag("td", stat(f"{path}/by_logged/{logged}/impressions", count(summary.impressions))),
        )
        for logged, summary in levels.by_logged.items()
    ]
    sentence = join(
        f"{model.model}: the most likely level equals the logged one for {percent(levels.agreement)} of ",
        stat(f"{path}/impressions", count(levels.impressions)),
        " impressions; log loss of the level ",
        stat(f"{path}/log_loss", fixed(levels.log_loss)),
        ". Mean P(level):",
    )
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return join(tag("p", sentence, style="margin:1em 0 0.3em"), tag("div", table, class_="scroll"))


def _last_pages(index: int, model: ModelReport) -> Markup:
    pages = [
        tag(
            "details",
            tag("summary", "page for ", tag("bdi", page.query or "(empty)"), f", by {model.model}"),
            _items(f"models/{index}/inferred_levels/last_pages/{number}/items", page.items),
        )
        for number, page in enumerate(_levels(model).last_pages)
    ]
    return join(*pages)


def _items(path: str, items: Sequence[ItemLevels]) -> Markup:
    names = ("item", "P(1)", "P(2)", "P(3)", "P(4)", "logged as", "P(click)", "clicked")
    rows = [
        tag(
            "tr",
            tag("th", tag("bdi", _short(item.title or item.item_id)), scope="row", title=item.title or item.item_id),
            *(
                tag("td", stat(f"{path}/{index}/levels/{level}", fixed(probability, _DECIMALS)))
                for level, probability in item.levels.items()
            ),
            tag("td", stat(f"{path}/{index}/logged", count(item.logged))),
            tag("td", stat(f"{path}/{index}/click_probability", fixed(item.click_probability))),
            tag("td", "✓" if item.clicked else ""),
        )
        for index, item in enumerate(items)
    ]
    table = tag("table", tag("thead", tag("tr", *map(_head, names))), tag("tbody", *rows))
    return tag("div", table, class_="scroll")


def _head(name: str) -> Markup:
    return tag("th", name, scope="col", style="text-align:left" if name in _NAME_COLUMNS else "text-align:right")


def _short(text: str) -> str:
    return text if len(text) <= _TITLE_LENGTH else text[: _TITLE_LENGTH - 1] + "…"


def _levels(model: ModelReport) -> LevelReport:
    assert model.inferred_levels is not None
    return model.inferred_levels
