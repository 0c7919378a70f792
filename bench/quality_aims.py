"""What was aimed for, and whether it is reached: judged from the figures alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import Final

from bench.drift import WITHIN, DriftRun, pool, won_back
from bench.quality_rows import RESOLVED, Difference, Row
from bench.quality_tables import counted, verdict

SHARE: Final = 0.85
"""Of the reference, in track T."""
BEHIND: Final = 0.002
"""AUC that prectr-v2 may be behind the strong baseline."""
NEVER_SHOWN: Final = 0.03
"""AUC on what was never shown that debias, and prectr-v2 above the strong baseline, should gain."""
CACHE_LOSS: Final = 0.001
CACHE_SPEED: Final = 2_500
WON_BACK: Final = 0.80

FORMS: Final = {
    "prectr-v2 debias=hinge": "hinge",
    "prectr-v2 debias=shift": "shift",
    "prectr-v2": "shift+soft",
    "prectr-v2 graded=low": "shift+soft, 30 % of the graded pairs of levels 1 and 2 missing",
    "prectr-v2 graded=high": "shift+soft, 30 % of those of levels 3 and 4 missing",
}
"""The forms of exposure debias, by the contenders that have them; the last two misjudge the candidates' levels."""

NO_DEBIAS: Final = "prectr-v2 without debias"


@dataclass(frozen=True, slots=True)
class Aim:
    """An aim, what was found, and whether it is reached; None where it cannot be told yet."""

    what: str
    found: str
    reached: bool | None


def aims(
    rows: Sequence[Row],
    differences: Sequence[Difference],
    between_forms: Sequence[Difference],
    drift: Sequence[DriftRun],
) -> list[Aim]:
    """All aims of track T. between_forms: each form of debias less none."""
    steps = {(one.better, one.than, one.figure): one for one in differences if one.track == "T"}

    def step(better: str, than: str, figure: str = "auc_expected") -> Difference | None:
        return steps.get((better, than, figure))

    found = [_order(step("wide-deep", "lr"), "lr < wide-deep"), _alike(step("wide-deep", "dnn"))]
    found += [
        _order(step("prectr", "dnn"), "dnn < prectr"),
        _order(step("prectr", "wide-deep"), "wide-deep < prectr"),
        _order(step("prectr-v2", "prectr"), "prectr < prectr-v2"),
        _order(step("prectr-v2", "prectr-v2 without cold-start"), "without cold-start mining < prectr-v2"),
    ]
    found.append(_most_for_new([step("prectr-v2", "prectr-v2 without cold-start", figure) for figure in _BY_USERS]))
    found += _against_baseline([step("prectr-v2", "wide-deep+", figure) for figure in _AGAINST_BASELINE])
    found.append(_share([row for row in rows if (row.name, row.track) == ("prectr-v2", "T")]))
    found += [debias_rule(form, [one for one in between_forms if one.better == form]) for form in FORMS]
    found += _cache(rows, step("prectr-v2 encoder_share=1", "prectr-v2"))
    found.append(_drift([run for run in drift if (run.name, run.track) == ("prectr-v2", "T")]))
    return found


_BY_USERS: Final = ("auc_new", "auc_low", "auc_active")
_AGAINST_BASELINE: Final = ("auc_expected", "auc_never_shown", "expected_clicks", "auc_new")


def _order(one: Difference | None, what: str) -> Aim:
    if one is None or one.interval is None:
        return Aim(f"{what}, resolved", _signed(one), None)
    return Aim(f"{what}, resolved", f"{_signed(one)}, {verdict(one).strip('*')}", one.resolved and one.mean > 0)


def _alike(one: Difference | None) -> Aim:
    reached = None if one is None or one.interval is None else not one.resolved
    return Aim(f"wide-deep ≈ dnn (a step under {RESOLVED}, or none that is sure)", _signed(one), reached)


def _most_for_new(steps: Sequence[Difference | None]) -> Aim:
    known = [one.mean for one in steps if one is not None]
    what = "cold-start mining is worth most for new users"
    if len(known) < len(steps):
        return Aim(what, "", None)
    new, low, active = known
    return Aim(what, f"new {new:+.4f}, low {low:+.4f}, active {active:+.4f}", new > max(low, active))


def _against_baseline(steps: Sequence[Difference | None]) -> list[Aim]:
    auc, never_shown, clicks, new = steps
    return [
        Aim(f"prectr-v2 at most {BEHIND} AUC behind wide-deep+", _signed(auc), _at_least(auc, -BEHIND)),
        Aim("better still: above wide-deep+", _signed(auc), _at_least(auc, 0.0)),
        Aim(
            f"never-shown AUC at least {NEVER_SHOWN} above wide-deep+",
            _signed(never_shown),
            _at_least(never_shown, NEVER_SHOWN),
        ),
        Aim("expected clicks not below wide-deep+", _signed(clicks), _at_least(clicks, 0.0)),
        Aim("new users not below wide-deep+", _signed(new), _at_least(new, 0.0)),
    ]


def _share(rows: Sequence[Row]) -> Aim:
    shares = [row.share_of_reference for row in rows if row.share_of_reference is not None]
    what = f"share of the reference at least {SHARE}"
    return Aim(what, f"{mean(shares):.3f}", mean(shares) >= SHARE) if shares else Aim(what, "", None)


def debias_rule(form: str, over_none: Sequence[Difference]) -> Aim:
    """Whether a form of debias earns its place (WORLD.md), from its differences to none at all.

    Never-shown AUC gains at least 0.03, expected clicks do not fall, level 1 in the top 10 falls, and AUC loses at
    most 0.001.
    """
    what = f"debias earns its place: {FORMS[form]}"
    mean_of = {one.figure: one.mean for one in over_none}
    needed = ("auc_never_shown", "expected_clicks", "share_level_1", "auc_expected")
    if any(figure not in mean_of for figure in needed):
        return Aim(what, "", None)
    never, clicks, level_1, auc = (mean_of[figure] for figure in needed)
    reached = never >= NEVER_SHOWN and clicks >= 0 and level_1 < 0 and auc >= -RESOLVED
    told = f"never shown {never:+.4f}, expected clicks {clicks:+.3f}, level 1 {level_1:+.3f}, AUC {auc:+.4f}"
    return Aim(what, f"{told} ({counted(over_none[0].seeds)})", reached)


def _cache(rows: Sequence[Row], full: Difference | None) -> list[Aim]:
    speeds = [row.impressions_per_second for row in rows if (row.name, row.track) == ("prectr-v2", "T")]
    known = [speed for speed in speeds if speed is not None]
    speed = mean(known) if known else None
    return [
        Aim(
            f"the pair cache loses at most {CACHE_LOSS} AUC against the full encoder",
            "" if full is None else f"{-full.mean:+.4f} ({counted(full.seeds)})",
            None if full is None else -full.mean >= -CACHE_LOSS,
        ),
        Aim(
            f"prectr-v2 learns from {CACHE_SPEED:,} impressions a second (with whatever else the machine does)",
            "" if speed is None else f"{speed:,.0f}",
            None if speed is None else speed >= CACHE_SPEED,
        ),
    ]


def _drift(runs: Sequence[DriftRun]) -> Aim:
    what = f"drift: {WON_BACK:.0%} of the excess on changed queries won back within {WITHIN},000 pages"
    if not runs:
        return Aim(what, "", None)
    changed, others = pool([run.changed for run in runs]), pool([run.others for run in runs])
    share = float(won_back(changed, others)["online"][WITHIN - 1])
    if not isfinite(share):
        return Aim(what, "too few pages", None)
    return Aim(what, f"{share:.0%} ({counted(len(runs))})", share >= WON_BACK)


def _signed(one: Difference | None) -> str:
    if one is None:
        return ""
    interval = "" if one.interval is None else f" ({one.interval[0]:+.4f} … {one.interval[1]:+.4f})"
    return f"{one.mean:+.4f}{interval}"


def _at_least(one: Difference | None, least: float) -> bool | None:
    return None if one is None else one.mean >= least
