"""`bench.quality`: whether targets are reached."""

from collections.abc import Sequence

import pytest

from bench.quality.benchmark import paired_differences
from bench.quality.rows import Row, paired_difference
from bench.quality.targets import NO_DEBIAS, evaluate_targets
from bench.relevance.benchmark import DESCRIBED
from tests.bench.quality_rows import row


def reached(rows: Sequence[Row]) -> dict[str, bool | None]:
    forms = [
        paired_difference(rows, "prectr-v2", NO_DEBIAS, figure)
        for figure in ("auc_never_shown", "expected_clicks", "share_level_1", "auc_expected")
    ]
    return {
        one.description: one.reached
        for one in evaluate_targets(rows, paired_differences(rows), [one for one in forms if one], [], {})
    }


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"auc_never_shown": 0.54, "expected_clicks": 1.51, "share_level_1": 0.02, "auc": 0.6995}, True),
        ({"auc_never_shown": 0.52, "expected_clicks": 1.51, "share_level_1": 0.02}, False),
        ({"auc_never_shown": 0.54, "expected_clicks": 1.49, "share_level_1": 0.02}, False),
        ({"auc_never_shown": 0.54, "expected_clicks": 1.51, "share_level_1": 0.06}, False),
        ({"auc_never_shown": 0.54, "expected_clicks": 1.51, "share_level_1": 0.02, "auc": 0.698}, False),
    ],
)
def test_debias_target_needs_all_four_metrics(figures: dict[str, float], expected: bool) -> None:
    rows = [row(NO_DEBIAS), row("prectr-v2", **figures)]
    assert reached(rows)["debias reaches its target: prior_adjustment+soft"] is expected


def test_target_without_measurements_is_undecided() -> None:
    assert set(reached([]).values()) == {None}
    one_seed = reached([row("prectr"), row("prectr-v2", auc=0.72)])
    assert one_seed["prectr < prectr-v2, resolved"] is None
    three = [row("prectr", seed) for seed in range(3)]
    three += [row("prectr-v2", seed, auc=0.72 + seed / 1000) for seed in range(3)]
    assert reached(three)["prectr < prectr-v2, resolved"] is True
    assert reached(three)["share of the reference at least 0.85"] is False


@pytest.mark.parametrize(
    ("auc", "less_teacher", "within", "expected"),
    [
        (0.92, -0.01, 0.96, [True, True, True, True]),
        (0.92, -0.01, 0.93, [True, True, True, False]),
        (0.92, -0.03, 0.90, [False, True, False, False]),
        (0.88, -0.02, 0.96, [True, False, True, False]),
    ],
)
def test_student_targets_compare_with_teacher_and_minilm(
    auc: float, less_teacher: float, within: float, expected: list[bool]
) -> None:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    rows = {
        "student": {"auc": figure(auc), "within_query": figure(within), "ndcg": figure(0.9)},
        "minilm cosine": {"auc": figure(0.9), "within_query": figure(0.935), "ndcg": figure(0.893)},
        DESCRIBED: {"auc": figure(0.91), "within_query": figure(0.975), "ndcg": figure(0.895)},
    }
    found = {
        "rows": rows,
        "student_less_teacher_auc": figure(less_teacher),
        "student_less_minilm_auc": figure(auc - 0.9),
    }
    chorus = [one for one in evaluate_targets([], [], [], [], found) if one.description.startswith("Chorus")]
    assert [one.reached for one in chorus] == expected
    assert chorus[0].found == f"{less_teacher:+.3f} ({less_teacher - 0.01:+.3f} … {less_teacher + 0.01:+.3f})"
