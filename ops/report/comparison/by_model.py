"""The sections of one model; among several, the reader selects the model, without a script."""

from typing import Final

from prectr.ops.report.comparison.sections import comparison, lost_queries, reranked
from prectr.ops.report.markup import Markup, join, tag
from prectr.ops.report.quality_sections import calibration, over_time, segments, splits
from prectr.ops.report.schema import Report

_MAX_MODELS: Final = 16
"""Models that can be selected; a run with more shows the first ones here, and all in the table."""

SELECTION_STYLE: Final = (
    ".pick{position:absolute;opacity:0}.picks{display:flex;flex-wrap:wrap;align-items:center;gap:8px;margin:24px 0 0}"
    ".picks label{padding:5px 14px;border:1px solid var(--edge);border-radius:999px;cursor:pointer;font-size:14px}"
    ".of{display:none}.both{display:block;font-size:12px;color:var(--soft)}"
    + "".join(
        f"#m{n}:checked~.of-m{n}{{display:block}}#m{n}:checked~.picks label[for=m{n}]"
        "{background:var(--ink);color:var(--paper);border-color:var(--ink)}"
        f"#m{n}:focus-visible~.picks label[for=m{n}]{{outline:2px solid var(--c0);outline-offset:2px}}"
        for n in range(_MAX_MODELS)
    )
    + "@media print{.picks label{border:0}}"
)


def by_model(report: Report) -> Markup:
    """All that belongs to one model, for each of them; the first one is selected."""
    models = report.models[:_MAX_MODELS]
    if not models:
        return Markup("")
    if len(models) == 1:
        return _sections(report, 0)
    # Radio buttons: they are void elements, which `tag` does not make.
    buttons = [
        Markup(f'<input class="pick" type="radio" name="model" id="m{number}"{" checked" if number == 0 else ""}>')
        for number in range(len(models))
    ]
    labels = [tag("label", model.model, for_=f"m{number}") for number, model in enumerate(models)]
    parts = [tag("div", _sections(report, number), class_=f"of of-m{number}") for number in range(len(models))]
    return tag("div", *buttons, tag("div", "Model: ", *labels, class_="picks"), *parts)


def _sections(report: Report, number: int) -> Markup:
    model, at = report.models[number], f"models/{number}"
    return join(
        comparison(report, number),
        over_time(model),
        segments(model, at),
        tag("div", calibration(model), lost_queries(model, at), class_="sections"),
        splits(model, at),
        reranked(model, at),
    )
