"""Failpoints: each name is passed somewhere, and an unknown name is an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prectr.state.failpoints import Failpoint, failpoint, set_failpoint_hook

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_hook_left() -> Iterator[None]:
    yield
    set_failpoint_hook(None)


def test_a_hook_is_called_at_every_point_until_it_is_removed() -> None:
    passed: list[Failpoint] = []
    failpoint(Failpoint.SNAPSHOT)
    set_failpoint_hook(passed.append)
    failpoint(Failpoint.SNAPSHOT)
    failpoint(Failpoint.RESTORE)
    set_failpoint_hook(None)
    failpoint(Failpoint.RESTORE)
    assert passed == [Failpoint.SNAPSHOT, Failpoint.RESTORE]


def test_a_misspelt_name_is_an_error() -> None:
    assert Failpoint("published") is Failpoint.PUBLISHED
    with pytest.raises(ValueError, match="befor_commit"):
        Failpoint("befor_commit")


@pytest.mark.parametrize("point", Failpoint)
def test_every_point_is_passed_at_one_place_in_the_program(point: Failpoint) -> None:
    files = [path for folder in ("state", "stream", "model", "ops") for path in (ROOT / folder).rglob("*.py")]
    calls = [path.name for path in files if f"failpoint(Failpoint.{point.name})" in path.read_text()]
    assert len(calls) == 1
