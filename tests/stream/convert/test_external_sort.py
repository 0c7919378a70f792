"""Promises of the external sort: sorted() is the oracle, whatever is spilled, and nothing is left behind."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prectr.stream.convert.external_sort
from prectr.stream.convert.external_sort import ExternalSorter

KEYS = st.one_of(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans())),
    st.lists(st.tuples(st.text("abé\U0001f600", max_size=2), st.integers(0, 1))),
)


@given(keys=KEYS, run_bytes=st.integers(1, 1000), open_runs=st.integers(2, 4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_come_as_from_a_stable_sort_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[tuple[str | int, ...]], run_bytes: int, open_runs: int
) -> None:
    monkeypatch.setattr(prectr.stream.convert.external_sort, "_MAX_OPEN_RUNS", open_runs)
    with ExternalSorter(tmp_path, run_bytes) as sorter:
        for number, key in enumerate(keys):
            sorter.add(key, str(number).encode())
        found = [(tuple(key), int(payload)) for key, payload in sorter]
    assert found == sorted(((key, number) for number, key in enumerate(keys)), key=lambda record: record[0])
    assert list(tmp_path.iterdir()) == []


def test_several_levels_of_runs_are_merged_with_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prectr.stream.convert.external_sort, "_MAX_OPEN_RUNS", 3)
    with ExternalSorter(tmp_path, run_bytes=1) as sorter:
        for number in range(100):
            sorter.add((number * 37 % 100,), b"x" * number)
        assert [(tuple(key), len(payload)) for key, payload in sorter] == [
            ((key,), number) for key, number in sorted((number * 37 % 100, number) for number in range(100))
        ]
        # A hundred runs of one record: 34, 12, 4 and at last 2 runs are left.
        assert len(list(tmp_path.glob(".convert-*/*"))) == 2


def test_runs_are_removed_also_after_an_error(tmp_path: Path) -> None:
    with ExternalSorter(tmp_path, run_bytes=1) as sorter:
        sorter.add((1,), "no bytes")  # type: ignore[arg-type]
        with pytest.raises(msgspec.ValidationError):
            list(sorter)
    assert list(tmp_path.iterdir()) == []
