"""Renders the record of `bench.quality` as a Markdown page with tables and plots."""

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
    "full": "python -m bench.quality --seeds 0,1 --models prectr-v2 --debias none,hinge,prior_adjustment --set"
    " encoder_share=1 --jobs 2",
    "G": "python -m bench.quality --seeds 0,1,2,3 --track G --jobs 2",
    "curve": "python -m bench.quality --curve",
    "drift": "python -m bench.quality --drift --seeds 0,1,2,3 --jobs 2",
    "relevance": "python -m bench.relevance --json relevance.json` and `python -m bench.quality --page-only "
    "--relevance relevance.json",
}
"""The command that measures each part of the page."""

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
    "Track T, second half. The last two columns are from PRECTR-V2's table, measured on a private log: the order is"
    " comparable, the values are not. AUC and GAUC with expected labels; new users: fewer than 3 earlier clicks; never"
    " shown: pairs that the log had not shown before; expected clicks: of each model's own top 10 of all candidates."
)
_REFERENCE_ROWS: Final = ("position alone", "position × level", "reference learner", "oracle")


def write_page(record: QualityResults, differences: Sequence[Difference], out: Path | None) -> str:
    """Render the page; with `out`, write it there with its plots beside it."""
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
        lines += ["## Comparison with the paper's table", "", _PAPER_NOTE, "", *paper_table(beside), ""]
    lines += ["## Levels inferred (track T)", ""]
    if headline:
        lines += plot("models", "AUC of each model", lambda path: plot_models(headline, path))
        lines += [*_model_tables(headline), "### Differences", ""]
        lines += _difference_section([one for one in differences_t if _has_default_settings(one)], _STEP_METRICS)
    else:
        lines += _not_run_yet("headline")
    lines += ["## Targets", "", *_target_table(_evaluated_targets(record, differences_t))]
    lines += ["## Ablations of prectr-v2", "", *_ablations(track_t, differences_t)]
    lines += ["## Effect of the exposure features", "", *_exposure(track_t, differences_t)]
    lines += ["## Exposure debias", "", *_debias(track_t, record)]
    lines += ["## Pair cache and full encoder", "", *_full(track_t, differences_t)]
    lines += ["## Levels given (track G)", ""]
    lines += (
        [*_model_tables(track_g), *_difference_section(differences_g, _STEP_METRICS)] if track_g else _not_run_yet("G")
    )
    lines += ["## Accuracy of stage-one levels", "", *_levels(record.levels, record.stage_one)]
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
    """Whether both variants of a pair are complete models with default settings."""
    return all(" without " not in name and "=" not in name for name in (one.better, one.other))


# --- introduction and main tables -------------------------------------------------------------------------------------


def _introduction(record: QualityResults) -> list[str]:
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items())
    seeds = sorted({row.seed for row in record.rows})
    named = f"seeds {', '.join(map(str, seeds))}" if len(seeds) != 1 else f"seed {seeds[0]}"
    return [
        "# Quality of the models in the simulated world",
        "",
        "Written by `python -m bench.quality`, which measures in pieces; the commands that ran are listed at the end.",
        "",
        f"Simulated logs of {record.pages:,} pages over {record.days:g} days, {named}; each is replayed once through"
        f" both stages with every model training on the same examples ({settings}). Evaluation is prequential: each"
        " impression is scored before training on it, at the position it was shown at. Metrics cover the second half of"
        " the log unless a column is labelled otherwise. Expected labels: an impression with true click probability p"
        " has weight p as a click and 1 − p as no click. Up to"
        f" {MAX_SEEDS_LISTED} seeds are listed; beyond, mean ± standard deviation.",
        "",
        "In track T models do not see the logged level of the impression they score: all get P(level) and e_q·e_i from"
        " the same stage-one encoder, which was trained on another catalogue. In track G all are given the true level,"
        " and get the same text vectors. The aggregates count logged levels in both. Baselines, reference learner and"
        " oracle know the true level in both tracks; models are placed between them. Models read texts through the"
        f" cache of pair embeddings (`encoder_share` {TrainerConfig().encoder_share:g}), except in rows with"
        " `encoder_share=1`.",
        "",
    ]


def _model_tables(rows: Sequence[Row]) -> list[str]:
    return [
        *row_table(rows, QUALITY_COLUMNS),
        "",
        "Share of the reference: (AUC − position alone) / (reference learner − position alone) with real clicks, seed"
        " by seed. The reference learner knows the form and constants of the world and every item's taste vector; the"
        " oracle knows the true probability. Baselines are click rates of the first half. Calibration: mean"
        " predicted/observed.",
        "",
        "### By number of earlier clicks of the user, and over the whole log",
        "",
        *row_table(rows, USER_COLUMNS),
        "",
        "Impressions/s cover training only (wall time, one thread per model), without decoding and the stages; other"
        " load on the machine lowers them.",
        "",
        "### Items that were not shown",
        "",
        "Five candidates per page of the second half, drawn from those not shown, at position 1, against their true"
        " probabilities (never shown: the query had not shown them before); and the ranking of all candidates on every"
        " 16th page: expected clicks of its top 10 (Σ p · rank^-0.7).",
        "",
        *row_table(rows, UNEXPOSED_COLUMNS),
        "",
    ]


def _difference_section(differences: Sequence[Difference], metrics: Sequence[str]) -> list[str]:
    if not differences:
        return []
    return [
        "Means over seeds with 95 % intervals (paired t over the seeds). A difference in AUC (expected labels) is"
        " resolved, above or below, if the interval excludes zero and the difference is at least 0.001; otherwise it is"
        " unresolved. Over users: 95 % interval of the same mean difference under a bootstrap over the users of each"
        " seed.",
        "",
        *difference_table(differences, metrics),
        "",
    ]


def _evaluated_targets(record: QualityResults, differences: Sequence[Difference]) -> list[Target]:
    return evaluate_targets(record.rows, differences, _debias_differences(record), record.drift, record.relevance)


def _target_table(found: Sequence[Target]) -> list[str]:
    answers = {True: "yes", False: "**no**", None: "not measured yet"}
    return [
        "Evaluated on the means; the order of two models only where their difference is resolved.",
        "",
        "| | measured | reached |",
        "|---|---|---|",
        *(f"| {target.description} | {target.found} | {answers[target.reached]} |" for target in found),
        "",
        *_explanations([target for target in found if target.reached is False and target.explanation]),
    ]


def _explanations(missed: Sequence[Target]) -> list[str]:
    if not missed:
        return []
    reasons: dict[str, list[str]] = {}
    for target in missed:
        reasons.setdefault(target.explanation, []).append(target.description)
    lines = [f"- *{'; '.join(descriptions)}*: {reason}" for reason, descriptions in reasons.items()]
    return ["Presumed reasons for the missed targets:", "", *lines, ""]


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
        "How often, and how high, an item has been shown for the query is a feature of cold-start mining in `prectr-v2`"
        " that the other models do not have. The ranker that produced these logs knows the levels, so its exposure"
        " reveals them: the feature is worth more here than in a log of a weaker ranker. `wide-deep+` with the same"
        " feature separates the gain of the feature from that of the model.",
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
        "`prectr-v2` uses the form `prior_adjustment+soft`; `graded=low` and `graded=high` are the same with 30 % of"
        " stage one's graded pairs of levels 1 and 2, or 3 and 4, missing, so that the prior over candidates is wrong."
        " Target: never-shown AUC gains at least 0.03, expected clicks do not fall, level 1 in the top 10 falls, and"
        " AUC loses at most 0.001.",
        "",
        *row_table(own, QUALITY_COLUMNS),
        "",
        *row_table(own, UNEXPOSED_COLUMNS),
        "",
        *_difference_section(_debias_differences(record), _STEP_METRICS),
        *([] if any("graded=" in row.name for row in own) else _not_run_yet("misjudged")),
    ]


def _debias_differences(record: QualityResults) -> list[Difference]:
    """Differences of each form of debias to none."""
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
        "With `encoder_share=1` the encoder runs, and is trained, on every pair of a batch; otherwise on"
        f" {TrainerConfig().encoder_share:.0%} of them, and the others come from the cache.",
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
            f"The encoder was trained on catalogue seed {recipe['seed']}, with the same words but other items and"
            f" queries: first on {recipe['synthetic_pairs']:,} pairs of synthetic queries, with levels by a rule over"
            f" the catalogue's fields and titles (no grades); then on {recipe['pairs']:,} graded pairs drawn uniformly"
            f" from the candidates, {recipe['wrong']:.0%} of their levels off by one.",
            "",
        ]
    known = [one.known_queries for one in levels if one.known_queries is not None]
    if known:
        lines += [
            f"Of the sampled impressions, {sum(known) / len(known):.1%} have a query whose text is among the graded"
            " ones (with other items).",
            "",
        ]
    lines += [
        f"| | {' | '.join(f'{name}: accuracy | log loss' for name in SLICES)} | seeds |",
        f"|---|{'---|---|' * len(SLICES)}---|",
    ]
    for name in dict.fromkeys(one.name for one in levels):
        group = [one for one in levels if one.name == name]
        means = mean_level_metrics([one.metrics for one in group])
        cells = [
            f"{means[part].accuracy:.3f} | {means[part].log_loss:.3f}" if part in means else " | " for part in SLICES
        ]
        title = f"after joint training, {name}" if name else "after stage one"
        lines.append(f"| {title} | {' | '.join(cells)} | {len({one.seed for one in group})} |")
    return [
        *lines,
        "",
        "After joint training: P(level) as used for scoring after the last page, that is with `prior_adjustment` and"
        " the exposure features for pairs that the query has shown; for never-shown pairs, P(level) of the level head.",
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
        "In the middle of the log 30 % of the queries change their kind. Excess: expected log loss minus that of the"
        " true probability, nats per impression, pooled over seeds. Frozen weights: a copy of the model at the change,"
        " which keeps scoring with the running aggregates and no longer trains; frozen: its query aggregates stop as"
        " well. The cost of the change, for each mode, is the rise of its excess on the changed queries minus the rise"
        " on the others, which has other causes; the recovered share is 1 − (cost) / (cost of frozen) in the bin that"
        f" ends {RECOVERY_BINS * BIN_PAGES:,} pages after the change. In brackets: single seeds; and from the changed"
        " queries alone.",
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
        lines.append(f"| recovered, online | | {' | '.join(f'{share:.0%}' for share in shares['online'].tolist())} |")
        for mode in MODES[:-1]:
            share = shares[mode][RECOVERY_BINS - 1]
            single = [
                recovered_share(pool_bins([run.changed]), pool_bins([run.others]))[mode][RECOVERY_BINS - 1]
                for run in own
            ]
            per_seed = ", ".join(f"{value:.0%}" for value in single)
            unadjusted = unadjusted_recovered_share(changed)[mode][RECOVERY_BINS - 1]
            lines += ["", f"Recovered by {name}, {mode}: **{share:.0%}** ({per_seed}; {unadjusted:.0%})."]
        lines.append("")
    return lines


def _relevance(found: dict[str, Any]) -> list[str]:
    if not found:
        return _not_run_yet("relevance")
    return [
        f"The human-graded pairs of Chorus in {found['folds']} folds over queries; each fold has a teacher, labels of"
        f" pairs of {found['synthetic_queries']:,} synthetic queries, and a student, none of which has seen its"
        " queries. After joint training: after training `prectr-v2` with the student on a simulated log, without"
        " levels. The score uses text alone. In brackets: 95 % intervals over queries.",
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
        "## Commands",
        "",
        "| | date | machine | seconds |",
        "|---|---|---|---|",
        *(f"| `{part.command}` | {part.date} | {part.machine} | {part.seconds:,.0f} |" for part in record.parts),
        "",
        *dict.fromkeys(f"{part.versions}." for part in record.parts),
        "",
    ]
    if len(codes) > 1:
        lines += [f"**Rows of models come from {len(codes)} versions of the code** ({', '.join(sorted(codes))}).", ""]
    if len(encoders) > 1:
        lines += [
            f"**Models used {len(encoders)} stage-one encoders** ({', '.join(sorted(encoders))}): retraining with the"
            " same recipe on another machine rounds differently, and gives another digest.",
            "",
        ]
    return [
        *lines,
        "Seconds exclude cached results. The budget is 6 hours on 2 cores: the full encoder runs only for prectr-v2 and"
        " its forms of debias, on the number of seeds given in its table; everything else uses the pair cache.",
    ]
