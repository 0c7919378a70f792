"""A fault of every kind against the whole live system; `make faults` does twelve times as many."""

from pathlib import Path

import pytest

from testkit.kafka_broker import Broker
from tests.faults.injection.log_endings import LOG_ENDINGS
from tests.faults.injection.registry import INJECTORS
from tests.faults.plan import KINDS, LOG_ENDING_KINDS, SNAPSHOT_KINDS, Scenario, make_plan
from tests.faults.reports.expected_reports import EXPECTED_REPORTS, ExpectedReport
from tests.faults.scenario import run_scenario
from tests.faults.snapshots import AVAILABLE
from tests.faults.worlds import LogCache

SEED = 7
FAULTS = len(KINDS)
SCENARIOS = make_plan(SEED, FAULTS, list(KINDS), snapshots=AVAILABLE, sizes=(6,))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> LogCache:
    return LogCache(tmp_path_factory.mktemp("worlds"))


def test_all_kinds_are_among_the_faults() -> None:
    kinds = [fault.kind for scenario in SCENARIOS for fault in scenario.faults]
    assert len(kinds) == FAULTS
    assert set(kinds) == set(KINDS) - (set() if AVAILABLE else SNAPSHOT_KINDS)


def test_every_kind_has_reports_and_a_way_to_happen() -> None:
    assert set(EXPECTED_REPORTS) == set(KINDS) == INJECTORS.keys() | LOG_ENDINGS.keys()
    assert LOG_ENDINGS.keys() == LOG_ENDING_KINDS


def test_a_fault_that_does_not_heal_must_be_reported_everywhere() -> None:
    with pytest.raises(ValueError, match="does not heal by itself"):
        ExpectedReport(None, "words", None)


@pytest.mark.several
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_after_faults_everything_is_as_if_nothing_had_happened(
    scenario: Scenario, broker: Broker, worlds: LogCache, tmp_path: Path
) -> None:
    outcome = run_scenario(scenario, broker, worlds, tmp_path / "scenario")
    done = "\n".join(f"  at {row.injected_at or 0:.1f} s: {row.description}" for row in outcome.rows)
    assert not outcome.problems, f"{'; '.join(outcome.problems)}\n{done}\nlogs: {outcome.logs}"
