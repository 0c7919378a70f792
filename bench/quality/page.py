"""The record of `bench.quality` as a page for people: tables and plots, and which command makes what is not there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.quality.bootstrap import Resampled
from bench.quality.plots import plot_curve, plot_drift, plot_models
from bench.quality.record import Record
from bench.quality.rows import Difference, Row, paired
from bench.quality.tables import QUALITY, SIDE_BY_SIDE, UNEXPOSED, USERS, beside_paper, counted, difference_table, table
from bench.quality.targets import FORMS, NO_DEBIAS, Aim, aims
from bench.relevance.benchmark import table as relevance_table
from bench.world.drift import BIN, WAYS, WITHIN, DriftRun, plainly_won_back, pool, won_back
from bench.world.learning_curve import CurvePoint
from bench.world.run_world import Levels
from bench.world.stage_one import SLICES, mean_figures
from prectr.model.config import TrainerConfig

_TEN: Final = "0,1,2,3,4,5,6,7,8,9"
COMMANDS: Final = {
    "headline": f"python -m bench.quality --seeds {_TEN} --jobs 2",
    "ablations": "python -m bench.quality --seeds 0,1,2 --models prectr-v2 --without all --jobs 3",
    "exposure": "python -m bench.quality --seeds 0,1 --models wide-deep+ --set exposure=on --jobs 2` and `python -m"
    " bench.quality --seeds 0,1 --models prectr-v2 --set exposure=off --jobs 2",
    "debias": f"python -m bench.quality --seeds {_TEN} --models prectr-v2 --debias none --jobs 2` and `python -m"
    " bench.quality --seeds 0,1,2,3 --models prectr-v2 --debias none,hinge,shift --jobs 2",
    "misjudged": "python -m bench.quality --seeds 0,1 --models prectr-v2 --set graded=low --jobs 2` and the same with"
    " `--set graded=high",
    "full": "python -m bench.quality --seeds 0,1 --models prectr-v2 --debias none,hinge,shift --set encoder_share=1"
    " --jobs 2",
    "G": "python -m bench.quality --seeds 0,1,2,3 --track G --jobs 2",
    "curve": "python -m bench.quality --curve",
    "drift": "python -m bench.quality --drift --seeds 0,1,2,3 --jobs 2",
    "relevance": "python -m bench.relevance --json relevance.json` and `python -m bench.quality --page-only "
    "--relevance relevance.json",
}
"""What makes each part of the page."""

_STEPS: Final = (
    "auc_expected",
    "auc",
    "gauc_expected",
    "auc_new",
    "auc_never_shown",
    "expected_clicks",
    "share_level_1",
)
_OF_WHOLE: Final = ("auc_expected", "auc", "auc_new", "auc_low", "auc_active", "auc_never_shown", "expected_clicks")
_BESIDE: Final = ("prectr-v2 without cold-start", "prectr-v2 without debias", "wide-deep+ exposure=on")
_OF_PAPER: Final = (
    "Track T, second half. The last two columns are those of PRECTR-V2's table, on a log that nobody else has: the"
    " order can be compared, the figures cannot. AUC and GAUC with expected labels; new users: fewer than 3 clicks"
    " before; never shown: pairs that the log never showed before; expected clicks: of each model's own ten best of all"
    " candidates."
)
_BETWEEN: Final = ("position alone", "position × level", "reference learner", "oracle")


def write_page(record: Record, differences: Sequence[Difference], out: Path | None) -> str:
    """The page, written to `out` with its plots beside it where a place is given."""
    plots: dict[str, Callable[[Path], None]] = {}
    text = _page(record, differences, plots, out.stem if out is not None else "quality")
    if out is not None:
        for name, plot in plots.items():
            plot(out.with_name(name))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    return text


def _page(
    record: Record, differences: Sequence[Difference], plots: dict[str, Callable[[Path], None]], stem: str
) -> str:
    def plot(name: str, title: str, draw: Callable[[Path], None]) -> list[str]:
        file = f"{stem}-{name}.svg"
        plots[file] = draw
        return [f"![{title}]({file})", ""]

    track_t = [row for row in record.rows if row.track == "T"]
    track_g = [row for row in record.rows if row.track == "G"]
    of_t = [one for one in differences if one.track == "T"]
    of_g = [one for one in differences if one.track == "G"]
    headline = [row for row in track_t if not row.without and "=" not in row.model]
    lines = _introduction(record)
    beside = [*headline, *(row for row in track_t if row.name in _BESIDE)]
    if headline:
        lines += ["## Beside the paper's table", "", _OF_PAPER, "", *beside_paper(beside), ""]
    lines += ["## Levels inferred (track T)", ""]
    if headline:
        lines += plot("models", "AUC of each model", lambda path: plot_models(headline, path))
        lines += [*_whole(headline), "### Steps", ""]
        lines += _differences([one for one in of_t if _plain(one)], _STEPS)
    else:
        lines += _missing("headline")
    lines += ["## What was aimed for", "", *_aims(_judged(record, of_t))]
    lines += ["## What each part of prectr-v2 is worth", "", *_ablations(track_t, of_t)]
    lines += ["## What being told of exposure is worth", "", *_exposure(track_t, of_t)]
    lines += ["## Exposure debias", "", *_debias(track_t, record)]
    lines += ["## The pair cache and the full encoder", "", *_full(track_t, of_t)]
    lines += ["## Levels given (track G)", ""]
    lines += [*_whole(track_g), *_differences(of_g, _STEPS)] if track_g else _missing("G")
    lines += ["## How well stage one tells levels", "", *_levels(record.levels, record.stage_one)]
    lines += ["## Learning curves", ""]
    if record.curve:
        lines += plot("curve", "Learning curves", lambda path: plot_curve(record.curve, path))
        lines += _curve(record.curve)
    else:
        lines += _missing("curve")
    lines += ["## Drift", ""]
    if record.drift:
        lines += plot("drift", "Drift", lambda path: plot_drift(record.drift, path))
        lines += _drift(record.drift)
    else:
        lines += _missing("drift")
    lines += ["## Relevance on Chorus", "", *_relevance(record.relevance), *_made_by(record)]
    return "\n".join(lines).rstrip() + "\n"


def _missing(*parts: str) -> list[str]:
    return [line for part in parts for line in (f"Not run yet: `{COMMANDS[part]}`.", "")]


def _plain(one: Difference) -> bool:
    """Whether both of a pair are whole models under the default settings."""
    return all(" without " not in name and "=" not in name for name in (one.better, one.than))


# --- what it is -------------------------------------------------------------------------------------------------------


def _introduction(record: Record) -> list[str]:
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items())
    seeds = sorted({row.seed for row in record.rows})
    named = f"seeds {', '.join(map(str, seeds))}" if len(seeds) != 1 else f"seed {seeds[0]}"
    return [
        "# Quality of the models in the simulated world",
        "",
        "Written by `python -m bench.quality`, which measures in pieces; what ran when and where stands at the end.",
        "",
        f"Simulated logs of {record.pages:,} pages over {record.days:g} days, {named}; each is replayed once through"
        f" both stages with every model learning from the same examples ({settings}). Each impression is scored before"
        " it is learned from, at the position it was shown at. Second half of the log, unless a column says otherwise."
        " Expected labels: an impression of true click probability p counts p as a click and 1 − p as none. Up to"
        f" {SIDE_BY_SIDE} seeds stand side by side; of more, mean ± standard deviation.",
        "",
        "In track T no model is told the level that was logged of the impression it scores: all get P(level) and"
        " e_q·e_i of the same stage-one encoder, which has learned from another catalogue. In track G all are told the"
        " true level, and get the same text vectors. The aggregates count logged levels in both. Floors, reference"
        " learner and oracle know the true level in both tracks: they are what models are placed between. Models read"
        f" texts through the cache of pair embeddings (`encoder_share` {TrainerConfig().encoder_share:g}), unless a row"
        " says `encoder_share=1`.",
        "",
    ]


def _whole(rows: Sequence[Row]) -> list[str]:
    return [
        *table(rows, QUALITY),
        "",
        "Share of the reference: (AUC − position alone) / (reference learner − position alone) with real clicks, seed"
        " by seed. The reference learner knows the world's form, constants and every item's taste vector; the oracle"
        " knows the true probability. Floors are click rates of the first half. Calibration: mean predicted/observed.",
        "",
        "### By the user's clicks so far, and the whole log",
        "",
        *table(rows, USERS),
        "",
        "Impressions a second are those of training alone (wall time, one thread a model), decoding and stages left"
        " out; other work on the machine lowers them.",
        "",
        "### What was not shown",
        "",
        "Five candidates a page of the second half, drawn from those not shown, at position 1, against their true"
        " probabilities (never shown: the query never showed them before); and the ranking of all candidates on every"
        " 16th page: expected clicks of its top 10 (Σ p · rank^-0.7).",
        "",
        *table(rows, UNEXPOSED),
        "",
    ]


def _differences(differences: Sequence[Difference], figures: Sequence[str]) -> list[str]:
    if not differences:
        return []
    return [
        "Means over seeds with their 95 % intervals (paired t over the seeds). A step in AUC (expected labels) is"
        " resolved, above or below, where the interval leaves zero out and the step is at least 0.001; else it is"
        " unresolved. Over users: the 95 % interval of the same mean step where the users of each seed are drawn anew"
        " (bootstrap).",
        "",
        *difference_table(differences, figures),
        "",
    ]


def _judged(record: Record, differences: Sequence[Difference]) -> list[Aim]:
    return aims(record.rows, differences, _of_forms(record), record.drift, record.relevance)


def _aims(found: Sequence[Aim]) -> list[str]:
    said = {True: "yes", False: "**no**", None: "not known yet"}
    return [
        "Judged from the means; the order of the models only where the step is resolved.",
        "",
        "| | found | reached |",
        "|---|---|---|",
        *(f"| {aim.what} | {aim.found} | {said[aim.reached]} |" for aim in found),
        "",
        *_held_back([aim for aim in found if aim.reached is False and aim.held_back]),
    ]


def _held_back(missed: Sequence[Aim]) -> list[str]:
    if not missed:
        return []
    reasons: dict[str, list[str]] = {}
    for aim in missed:
        reasons.setdefault(aim.held_back, []).append(aim.what)
    lines = [f"- *{'; '.join(whats)}*: {reason}" for reason, whats in reasons.items()]
    return ["What is believed to hold back those that are not reached:", "", *lines, ""]


# --- parts ------------------------------------------------------------------------------------------------------------


def _ablations(rows: Sequence[Row], differences: Sequence[Difference]) -> list[str]:
    own = [row for row in rows if row.model == "prectr-v2" and (row.without or row.name == "prectr-v2")]
    if not any(row.without for row in own):
        return _missing("ablations")
    steps = [one for one in differences if one.better == "prectr-v2" and " without " in one.than]
    seeds = {row.seed for row in own if row.without}
    own = [row for row in own if row.seed in seeds]
    return [*table(own, QUALITY), "", *table(own, UNEXPOSED), "", *_differences(steps, _OF_WHOLE)]


def _exposure(rows: Sequence[Row], differences: Sequence[Difference]) -> list[str]:
    told = ["wide-deep+", "wide-deep+ exposure=on", "prectr-v2 exposure=off", "prectr-v2"]
    names = {row.name for row in rows if "exposure=" in row.name}
    if not names:
        return _missing("exposure")
    seeds = {row.seed for row in rows if row.name in names}
    own = [row for row in rows if row.name in told and row.seed in seeds]
    own.sort(key=lambda row: (told.index(row.name), row.seed))
    steps = [one for one in differences if "exposure=" in one.better + one.than and {one.better, one.than} <= {*told}]
    return [
        "How often, and how high, an item has been shown for the query is a part of cold-start mining in `prectr-v2`,"
        " and not among what the other models are told. The ranker that wrote these logs knows the levels, so what it"
        " shows often tells them: here that is worth more than in a log whose ranker knows less. `wide-deep+` told of"
        " the same shows what of the gain is the feature's and what the model's.",
        "",
        *table(own, QUALITY),
        "",
        *table(own, UNEXPOSED),
        "",
        *_differences(steps, _STEPS),
    ]


def _debias(rows: Sequence[Row], record: Record) -> list[str]:
    seeds = {row.seed for row in rows if row.name == NO_DEBIAS}
    own = [row for row in rows if row.name in {NO_DEBIAS, *FORMS} and row.seed in seeds]
    if len({row.name for row in own}) < 2:
        return _missing("debias")
    order = (NO_DEBIAS, *FORMS)
    own.sort(key=lambda row: (order.index(row.name), row.seed))
    return [
        "`prectr-v2` itself has the form `shift+soft`; `graded=low` and `graded=high` are the same where 30 % of stage"
        " one's graded pairs of levels 1 and 2, or 3 and 4, are missing, so that the candidates are misjudged. A form"
        " earns its place if never-shown AUC gains at least 0.03,"
        " expected clicks do not fall, level 1 in the top 10 falls, and AUC loses at most 0.001.",
        "",
        *table(own, QUALITY),
        "",
        *table(own, UNEXPOSED),
        "",
        *_differences(_of_forms(record), _STEPS),
        *([] if any("graded=" in row.name for row in own) else _missing("misjudged")),
    ]


def _of_forms(record: Record) -> list[Difference]:
    """Each form of debias less none."""
    rows = [row for row in record.rows if row.track == "T"]
    drawn: list[Resampled] = [one for one in record.resampled if one.track == "T"]
    found = [paired(rows, form, NO_DEBIAS, figure, drawn) for form in FORMS for figure in _STEPS] if rows else []
    return [one for one in found if one is not None]


def _full(rows: Sequence[Row], differences: Sequence[Difference]) -> list[str]:
    full = [row for row in rows if "encoder_share=" in row.model]
    if not full:
        return _missing("full")
    names = {row.name for row in full}
    seeds = {row.seed for row in full}
    cached = {name.replace(" encoder_share=1", "") for name in names}
    own = [row for row in rows if row.name in names | cached and row.seed in seeds]
    own.sort(key=lambda row: (row.name.replace(" encoder_share=1", ""), row.name, row.seed))
    speed = {"impressions_per_second": USERS["impressions_per_second"]}
    return [
        "With `encoder_share=1` every pair of a batch goes through the encoder, which learns from all of them; else"
        f" {TrainerConfig().encoder_share:.0%} of them do, and the others are read from the cache.",
        "",
        *table(own, QUALITY | UNEXPOSED | speed),
        "",
        *_differences([one for one in differences if one.better in names], _STEPS),
    ]


def _levels(levels: Sequence[Levels], provenance: dict[str, Any]) -> list[str]:
    if not levels:
        return _missing("headline")
    recipe = provenance.get("recipe")
    lines = []
    if recipe:
        lines += [
            f"The encoder has learned from catalogue seed {recipe['seed']}, of the same words, other items and queries:"
            f" first {recipe['made_up']:,} pairs of made-up queries, whose levels a rule tells from the catalogue's own"
            f" fields and titles (no grades); then {recipe['pairs']:,} graded pairs drawn evenly over candidates,"
            f" {recipe['wrong']:.0%} of their levels off by one.",
            "",
        ]
    known = [one.known_queries for one in levels if one.known_queries is not None]
    if known:
        lines += [
            f"Of the showings looked at, {sum(known) / len(known):.1%} are for a query that, word by word, was among"
            " the graded ones too (with other items).",
            "",
        ]
    lines += [
        f"| | {' | '.join(f'{name}: accuracy | log loss' for name in SLICES)} | seeds |",
        f"|---|{'---|---|' * len(SLICES)}---|",
    ]
    for name in dict.fromkeys(one.name for one in levels):
        own = [one for one in levels if one.name == name]
        means = mean_figures([one.figures for one in own])
        cells = [
            f"{means[part].accuracy:.3f} | {means[part].log_loss:.3f}" if part in means else " | " for part in SLICES
        ]
        title = f"after joint training, {name}" if name else "as stage one left it"
        lines.append(f"| {title} | {' | '.join(cells)} | {len({one.seed for one in own})} |")
    return [
        *lines,
        "",
        "After joint training: P(level) as the scores rest on it after the last page, so with `shift` and what"
        " exposure tells for pairs that the query has shown; never-shown pairs are as the level head has them.",
        "",
    ]


def _curve(points: Sequence[CurvePoint]) -> list[str]:
    lines = [f"Seed {points[0].row.seed}; the second half of each log.", ""]
    columns = ("auc_expected", "auc_never_shown", "expected_clicks", "share_of_reference")
    titles = {**QUALITY, **UNEXPOSED}
    pages = sorted({point.pages for point in points})
    for column in columns:
        title, style = titles[column]
        lines += [f"| {title} | {' | '.join(f'{count:,} pages' for count in pages)} |", f"|---|{'---|' * len(pages)}"]
        for name in dict.fromkeys(point.row.name for point in points):
            values = {point.pages: getattr(point.row, column) for point in points if point.row.name == name}
            if all(value is None for value in values.values()):
                continue
            cells = ["" if values.get(count) is None else format(values[count], style) for count in pages]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _drift(runs: Sequence[DriftRun]) -> list[str]:
    lines = [
        "At the middle of the log 30 % of the queries change their kind. Excess: expected log loss less that of the"
        " true probability, nats an impression, pooled over seeds. Frozen weights: a copy of the model from the change,"
        " which scores on with the running aggregates and learns nothing; frozen: the aggregates of the queries stand"
        " still, too. The change costs a way the rise of its excess on the queries that changed, less its rise on the"
        " others, which comes from all else that there is to learn; won back is 1 − (that cost) / (the cost of frozen),"
        f" in the bin that ends {WITHIN * BIN:,} pages after the change. In brackets: of single seeds; and from the"
        " queries that changed alone.",
        "",
    ]
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        changed, others = pool([run.changed for run in own]), pool([run.others for run in own])
        width, count = own[0].bin_pages, len(changed.after["online"])
        ends = [f"to {(number + 1) * width:,}" for number in range(count)]
        lines += [f"| {name}, {counted(len(own))} | before | {' | '.join(ends)} |", f"|---|---|{'---|' * count}"]
        for which, found in (("changed", changed), ("other", others)):
            for way in WAYS:
                cells = [f"{value:.4f}" for value in found.after[way].tolist()]
                lines.append(f"| {which} queries, {way} | {found.before:.4f} | {' | '.join(cells)} |")
        shares = won_back(changed, others)
        lines.append(f"| won back, online | | {' | '.join(f'{share:.0%}' for share in shares['online'].tolist())} |")
        for way in WAYS[:-1]:
            share = shares[way][WITHIN - 1]
            single = [won_back(pool([run.changed]), pool([run.others]))[way][WITHIN - 1] for run in own]
            told = ", ".join(f"{value:.0%}" for value in single)
            plain = plainly_won_back(changed)[way][WITHIN - 1]
            lines += ["", f"Won back by {name}, {way}: **{share:.0%}** ({told}; {plain:.0%})."]
        lines.append("")
    return lines


def _relevance(found: dict[str, Any]) -> list[str]:
    if not found:
        return _missing("relevance")
    return [
        f"The human-graded pairs of Chorus in {found['folds']} folds over queries; each fold has a teacher, labels of"
        f" pairs of {found['made_up_queries']:,} made-up queries, and a student, which have seen none of its queries."
        " After joint training: when `prectr-v2` has learned with the student from a simulated log, told no level. Text"
        " alone is judged. In brackets: 95 % intervals over queries.",
        "",
        relevance_table(found),
        "",
        f"`{found['command']}`, {found['date']}, {found['machine']}.",
        "",
    ]


def _made_by(record: Record) -> list[str]:
    trained = [row for row in [*record.rows, *(point.row for point in record.curve)] if row.impressions_per_second]
    codes, encoders = ({getattr(row, name) for row in trained} for name in ("code", "stage_one"))
    lines = [
        "## What ran",
        "",
        "| | date | machine | seconds |",
        "|---|---|---|---|",
        *(f"| `{part.command}` | {part.date} | {part.machine} | {part.seconds:,.0f} |" for part in record.parts),
        "",
        *dict.fromkeys(f"{part.versions}." for part in record.parts),
        "",
    ]
    if len(codes) > 1:
        lines += [f"**The models' rows come from {len(codes)} states of the code** ({', '.join(sorted(codes))}).", ""]
    if len(encoders) > 1:
        lines += [
            f"**The models read with {len(encoders)} stage-one encoders** ({', '.join(sorted(encoders))}): one that is"
            " made again by the same recipe on another machine rounds otherwise, and has another digest.",
            "",
        ]
    return [
        *lines,
        "Seconds are of what was not kept from before. The budget is 6 hours on 2 cores: the full encoder runs for"
        " prectr-v2 and its forms of debias alone, on 2 seeds or as many as its table says, the pair cache everywhere"
        " else.",
    ]
