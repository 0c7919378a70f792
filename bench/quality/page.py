"""The record of `bench.quality` as a page for people: tables and plots, and which command makes what is not there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.quality.bootstrap import BootstrapResult
from bench.quality.plots import plot_curve, plot_drift, plot_models
from bench.quality.record import QualityResults
from bench.quality.rows import Difference, Row, paired_difference
from bench.quality.tables import (
    MAX_SEEDS_LISTED,
    QUALITY_COLUMNS,
    UNEXPOSED_COLUMNS,
    USER_COLUMNS,
    difference_table,
    paper_table,
    row_table,
    seeds_text,
)
from bench.quality.targets import DEBIAS_FORMS, NO_DEBIAS, Target, evaluate_targets
from bench.relevance.benchmark import relevance_table
from bench.world.drift import (
    BIN_PAGES,
    MODES,
    RECOVERY_BINS,
    DriftRun,
    pool_bins,
    recovered_share,
    unadjusted_recovered_share,
)
from bench.world.learning_curve import CurvePoint
from bench.world.run_world import LevelAccuracy
from bench.world.stage_one import SLICES, mean_level_metrics
from prectr.model.config import TrainerConfig

_TEN_SEEDS: Final = "0,1,2,3,4,5,6,7,8,9"
COMMANDS: Final = {
    "headline": f"python -m bench.quality --seeds {_TEN_SEEDS} --jobs 2",
    "ablations": "python -m bench.quality --seeds 0,1,2 --models prectr-v2 --without all --jobs 3",
    "exposure": "python -m bench.quality --seeds 0,1 --models wide-deep+ --set exposure=on --jobs 2` and `python -m"
    " bench.quality --seeds 0,1 --models prectr-v2 --set exposure=off --jobs 2",
    "debias": f"python -m bench.quality --seeds {_TEN_SEEDS} --models prectr-v2 --debias none --jobs 2` and `python -m"
    " bench.quality --seeds 0,1,2,3 --models prectr-v2 --debias none,hinge,prior_adjustment --jobs 2",
    "misjudged": "python -m bench.quality --seeds 0,1 --models prectr-v2 --set graded=low --jobs 2` and the same with"
    " `--set graded=high",
    "full": "python -m bench.quality --seeds 0,1 --models prectr-v2 --debias none,hinge,prior_adjustment --set encoder_share=1"
    " --jobs 2",
    "G": "python -m bench.quality --seeds 0,1,2,3 --track G --jobs 2",
    "curve": "python -m bench.quality --curve",
    "drift": "python -m bench.quality --drift --seeds 0,1,2,3 --jobs 2",
    "relevance": "python -m bench.relevance --json relevance.json` and `python -m bench.quality --page-only "
    "--relevance relevance.json",
}
"""What makes each part of the page."""

_STEP_METRICS: Final = (
    "auc_expected",
    "auc",
    "gauc_expected",
    "auc_new",
    "auc_never_shown",
    "expected_clicks",
    "share_level_1",
)
_ABLATION_METRICS: Final = (
    "auc_expected",
    "auc",
    "auc_new",
    "auc_low",
    "auc_active",
    "auc_never_shown",
    "expected_clicks",
)
_PAPER_ROWS: Final = ("prectr-v2 without cold-start", "prectr-v2 without debias", "wide-deep+ exposure=on")
_PAPER_NOTE: Final = (
    "Track T, second half. The last two columns are those of PRECTR-V2's table, on a log that nobody else has: the"
    " order can be compared, the figures cannot. AUC and GAUC with expected labels; new users: fewer than 3 clicks"
    " before; never shown: pairs that the log never showed before; expected clicks: of each model's own ten best of all"
    " candidates."
)
_REFERENCE_ROWS: Final = ("position alone", "position × level", "reference learner", "oracle")


def write_page(record: QualityResults, differences: Sequence[Difference], out: Path | None) -> str:
    """The page, written to `out` with its plots beside it where a place is given."""
    plots: dict[str, Callable[[Path], None]] = {}
    text = _render_page(record, differences, plots, out.stem if out is not None else "quality")
    if out is not None:
        for name, plot in plots.items():
            plot(out.with_name(name))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    return text


def _render_page(
    record: QualityResults, differences: Sequence[Difference], plots: dict[str, Callable[[Path], None]], stem: str
) -> str:
    def plot(name: str, title: str, draw: Callable[[Path], None]) -> list[str]:
        file = f"{stem}-{name}.svg"
        plots[file] = draw
        return [f"![{title}]({file})", ""]

    track_t = [row for row in record.rows if row.track == "T"]
    track_g = [row for row in record.rows if row.track == "G"]
    differences_t = [one for one in differences if one.track == "T"]
    differences_g = [one for one in differences if one.track == "G"]
    headline = [row for row in track_t if not row.without and "=" not in row.model]
    lines = _introduction(record)
    beside = [*headline, *(row for row in track_t if row.name in _PAPER_ROWS)]
    if headline:
        lines += ["## Beside the paper's table", "", _PAPER_NOTE, "", *paper_table(beside), ""]
    lines += ["## Levels inferred (track T)", ""]
    if headline:
        lines += plot("models", "AUC of each model", lambda path: plot_models(headline, path))
        lines += [*_model_tables(headline), "### Steps", ""]
        lines += _difference_section([one for one in differences_t if _has_default_settings(one)], _STEP_METRICS)
    else:
        lines += _not_run_yet("headline")
    lines += ["## What was aimed for", "", *_target_table(_evaluated_targets(record, differences_t))]
    lines += ["## What each part of prectr-v2 is worth", "", *_ablations(track_t, differences_t)]
    lines += ["## What being told of exposure is worth", "", *_exposure(track_t, differences_t)]
    lines += ["## Exposure debias", "", *_debias(track_t, record)]
    lines += ["## The pair cache and the full encoder", "", *_full(track_t, differences_t)]
    lines += ["## Levels given (track G)", ""]
    lines += (
        [*_model_tables(track_g), *_difference_section(differences_g, _STEP_METRICS)] if track_g else _not_run_yet("G")
    )
    lines += ["## How well stage one tells levels", "", *_levels(record.levels, record.stage_one)]
    lines += ["## Learning curves", ""]
    if record.curve:
        lines += plot("curve", "Learning curves", lambda path: plot_curve(record.curve, path))
        lines += _curve(record.curve)
    else:
        lines += _not_run_yet("curve")
    lines += ["## Drift", ""]
    if record.drift:
        lines += plot("drift", "Drift", lambda path: plot_drift(record.drift, path))
        lines += _drift(record.drift)
    else:
        lines += _not_run_yet("drift")
    lines += ["## Relevance on Chorus", "", *_relevance(record.relevance), *_made_by(record)]
    return "\n".join(lines).rstrip() + "\n"


def _not_run_yet(*parts: str) -> list[str]:
    return [line for part in parts for line in (f"Not run yet: `{COMMANDS[part]}`.", "")]


def _has_default_settings(one: Difference) -> bool:
    """Whether both of a pair are whole models under the default settings."""
    return all(" without " not in name and "=" not in name for name in (one.better, one.other))


# --- what it is -------------------------------------------------------------------------------------------------------


def _introduction(record: QualityResults) -> list[str]:
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
        f" {MAX_SEEDS_LISTED} seeds stand side by side; of more, mean ± standard deviation.",
        "",
        "In track T no model is told the level that was logged of the impression it scores: all get P(level) and"
        " e_q·e_i of the same stage-one encoder, which has learned from another catalogue. In track G all are told the"
        " true level, and get the same text vectors. The aggregates count logged levels in both. Baselines, reference"
        " learner and oracle know the true level in both tracks: they are what models are placed between. Models read"
        f" texts through the cache of pair embeddings (`encoder_share` {TrainerConfig().encoder_share:g}), unless a row"
        " says `encoder_share=1`.",
        "",
    ]


def _model_tables(rows: Sequence[Row]) -> list[str]:
    return [
        *row_table(rows, QUALITY_COLUMNS),
        "",
        "Share of the reference: (AUC − position alone) / (reference learner − position alone) with real clicks, seed"
        " by seed. The reference learner knows the world's form, constants and every item's taste vector; the oracle"
        " knows the true probability. Baselines are click rates of the first half. Calibration: mean predicted/observed.",
        "",
        "### By the user's clicks so far, and the whole log",
        "",
        *row_table(rows, USER_COLUMNS),
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
        *row_table(rows, UNEXPOSED_COLUMNS),
        "",
    ]


def _difference_section(differences: Sequence[Difference], metrics: Sequence[str]) -> list[str]:
    if not differences:
        return []
    return [
        "Means over seeds with their 95 % intervals (paired t over the seeds). A step in AUC (expected labels) is"
        " resolved, above or below, where the interval leaves zero out and the step is at least 0.001; else it is"
        " unresolved. Over users: the 95 % interval of the same mean step where the users of each seed are drawn anew"
        " (bootstrap).",
        "",
        *difference_table(differences, metrics),
        "",
    ]


def _evaluated_targets(record: QualityResults, differences: Sequence[Difference]) -> list[Target]:
    return evaluate_targets(record.rows, differences, _debias_differences(record), record.drift, record.relevance)


def _target_table(found: Sequence[Target]) -> list[str]:
    answers = {True: "yes", False: "**no**", None: "not known yet"}
    return [
        "Judged from the means; the order of the models only where the step is resolved.",
        "",
        "| | found | reached |",
        "|---|---|---|",
        *(f"| {target.description} | {target.found} | {answers[target.reached]} |" for target in found),
        "",
        *_explanations([aim for aim in found if aim.reached is False and aim.explanation]),
    ]


def _explanations(missed: Sequence[Target]) -> list[str]:
    if not missed:
        return []
    reasons: dict[str, list[str]] = {}
    for target in missed:
        reasons.setdefault(target.explanation, []).append(target.description)
    lines = [f"- *{'; '.join(descriptions)}*: {reason}" for reason, descriptions in reasons.items()]
    return ["What is believed to hold back those that are not reached:", "", *lines, ""]


# --- parts ------------------------------------------------------------------------------------------------------------


def _ablations(rows: Sequence[Row], differences: Sequence[Difference]) -> list[str]:
    own = [row for row in rows if row.model == "prectr-v2" and (row.without or row.name == "prectr-v2")]
    if not any(row.without for row in own):
        return _not_run_yet("ablations")
    steps = [one for one in differences if one.better == "prectr-v2" and " without " in one.other]
    seeds = {row.seed for row in own if row.without}
    own = [row for row in own if row.seed in seeds]
    return [
        *row_table(own, QUALITY_COLUMNS),
        "",
        *row_table(own, UNEXPOSED_COLUMNS),
        "",
        *_difference_section(steps, _ABLATION_METRICS),
    ]


def _exposure(rows: Sequence[Row], differences: Sequence[Difference]) -> list[str]:
    variants = ["wide-deep+", "wide-deep+ exposure=on", "prectr-v2 exposure=off", "prectr-v2"]
    names = {row.name for row in rows if "exposure=" in row.name}
    if not names:
        return _not_run_yet("exposure")
    seeds = {row.seed for row in rows if row.name in names}
    own = [row for row in rows if row.name in variants and row.seed in seeds]
    own.sort(key=lambda row: (variants.index(row.name), row.seed))
    steps = [
        one for one in differences if "exposure=" in one.better + one.other and {one.better, one.other} <= {*variants}
    ]
    return [
        "How often, and how high, an item has been shown for the query is a part of cold-start mining in `prectr-v2`,"
        " and not among what the other models are told. The ranker that wrote these logs knows the levels, so what it"
        " shows often tells them: here that is worth more than in a log whose ranker knows less. `wide-deep+` told of"
        " the same shows what of the gain is the feature's and what the model's.",
        "",
        *row_table(own, QUALITY_COLUMNS),
        "",
        *row_table(own, UNEXPOSED_COLUMNS),
        "",
        *_difference_section(steps, _STEP_METRICS),
    ]


def _debias(rows: Sequence[Row], record: QualityResults) -> list[str]:
    seeds = {row.seed for row in rows if row.name == NO_DEBIAS}
    own = [row for row in rows if row.name in {NO_DEBIAS, *DEBIAS_FORMS} and row.seed in seeds]
    if len({row.name for row in own}) < 2:
        return _not_run_yet("debias")
    order = (NO_DEBIAS, *DEBIAS_FORMS)
    own.sort(key=lambda row: (order.index(row.name), row.seed))
    return [
        "`prectr-v2` itself has the form `prior_adjustment+soft`; `graded=low` and `graded=high` are the same where 30 % of stage"
        " one's graded pairs of levels 1 and 2, or 3 and 4, are missing, so that the candidates are misjudged. A form"
        " earns its place if never-shown AUC gains at least 0.03,"
        " expected clicks do not fall, level 1 in the top 10 falls, and AUC loses at most 0.001.",
        "",
        *row_table(own, QUALITY_COLUMNS),
        "",
        *row_table(own, UNEXPOSED_COLUMNS),
        "",
        *_difference_section(_debias_differences(record), _STEP_METRICS),
        *([] if any("graded=" in row.name for row in own) else _not_run_yet("misjudged")),
    ]


def _debias_differences(record: QualityResults) -> list[Difference]:
    """Each form of debias less none."""
    rows = [row for row in record.rows if row.track == "T"]
    bootstraps: list[BootstrapResult] = [one for one in record.resampled if one.track == "T"]
    found = (
        [
            paired_difference(rows, form, NO_DEBIAS, metric, bootstraps)
            for form in DEBIAS_FORMS
            for metric in _STEP_METRICS
        ]
        if rows
        else []
    )
    return [one for one in found if one is not None]


def _full(rows: Sequence[Row], differences: Sequence[Difference]) -> list[str]:
    full = [row for row in rows if "encoder_share=" in row.model]
    if not full:
        return _not_run_yet("full")
    names = {row.name for row in full}
    seeds = {row.seed for row in full}
    cached = {name.replace(" encoder_share=1", "") for name in names}
    own = [row for row in rows if row.name in names | cached and row.seed in seeds]
    own.sort(key=lambda row: (row.name.replace(" encoder_share=1", ""), row.name, row.seed))
    speed = {"impressions_per_second": USER_COLUMNS["impressions_per_second"]}
    return [
        "With `encoder_share=1` every pair of a batch goes through the encoder, which learns from all of them; else"
        f" {TrainerConfig().encoder_share:.0%} of them do, and the others are read from the cache.",
        "",
        *row_table(own, QUALITY_COLUMNS | UNEXPOSED_COLUMNS | speed),
        "",
        *_difference_section([one for one in differences if one.better in names], _STEP_METRICS),
    ]


def _levels(levels: Sequence[LevelAccuracy], provenance: dict[str, Any]) -> list[str]:
    if not levels:
        return _not_run_yet("headline")
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
        group = [one for one in levels if one.name == name]
        means = mean_level_metrics([one.figures for one in group])
        cells = [
            f"{means[part].accuracy:.3f} | {means[part].log_loss:.3f}" if part in means else " | " for part in SLICES
        ]
        title = f"after joint training, {name}" if name else "as stage one left it"
        lines.append(f"| {title} | {' | '.join(cells)} | {len({one.seed for one in group})} |")
    return [
        *lines,
        "",
        "After joint training: P(level) as the scores rest on it after the last page, so with `prior_adjustment` and what"
        " exposure tells for pairs that the query has shown; never-shown pairs are as the level head has them.",
        "",
    ]


def _curve(points: Sequence[CurvePoint]) -> list[str]:
    lines = [f"Seed {points[0].row.seed}; the second half of each log.", ""]
    columns = ("auc_expected", "auc_never_shown", "expected_clicks", "share_of_reference")
    titles = {**QUALITY_COLUMNS, **UNEXPOSED_COLUMNS}
    pages = sorted({point.pages for point in points})
    for column in columns:
        title, number_format = titles[column]
        lines += [f"| {title} | {' | '.join(f'{count:,} pages' for count in pages)} |", f"|---|{'---|' * len(pages)}"]
        for name in dict.fromkeys(point.row.name for point in points):
            values = {point.pages: getattr(point.row, column) for point in points if point.row.name == name}
            if all(value is None for value in values.values()):
                continue
            cells = ["" if values.get(count) is None else format(values[count], number_format) for count in pages]
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
        f" in the bin that ends {RECOVERY_BINS * BIN_PAGES:,} pages after the change. In brackets: of single seeds; and from the"
        " queries that changed alone.",
        "",
    ]
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        changed, others = pool_bins([run.changed for run in own]), pool_bins([run.others for run in own])
        width, count = own[0].bin_pages, len(changed.after["online"])
        ends = [f"to {(number + 1) * width:,}" for number in range(count)]
        lines += [f"| {name}, {seeds_text(len(own))} | before | {' | '.join(ends)} |", f"|---|---|{'---|' * count}"]
        for segment, found in (("changed", changed), ("other", others)):
            for mode in MODES:
                cells = [f"{value:.4f}" for value in found.after[mode].tolist()]
                lines.append(f"| {segment} queries, {mode} | {found.before:.4f} | {' | '.join(cells)} |")
        shares = recovered_share(changed, others)
        lines.append(f"| won back, online | | {' | '.join(f'{share:.0%}' for share in shares['online'].tolist())} |")
        for mode in MODES[:-1]:
            share = shares[mode][RECOVERY_BINS - 1]
            single = [
                recovered_share(pool_bins([run.changed]), pool_bins([run.others]))[mode][RECOVERY_BINS - 1]
                for run in own
            ]
            per_seed = ", ".join(f"{value:.0%}" for value in single)
            unadjusted = unadjusted_recovered_share(changed)[mode][RECOVERY_BINS - 1]
            lines += ["", f"Won back by {name}, {mode}: **{share:.0%}** ({per_seed}; {unadjusted:.0%})."]
        lines.append("")
    return lines


def _relevance(found: dict[str, Any]) -> list[str]:
    if not found:
        return _not_run_yet("relevance")
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


def _made_by(record: QualityResults) -> list[str]:
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
