import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.model.features.level_prior import borrow_levels

LN2 = math.log(2)


@given(
    st.lists(st.booleans(), min_size=4, max_size=4).filter(any),
    st.lists(st.floats(-8, 8), min_size=4, max_size=4),
)
def test_levels_borrow_on_a_line_through_the_shown_ones_with_a_slope_of_ln_2_outside(
    shown: list[bool], log_odds: list[float]
) -> None:
    """The oracle: numpy's interpolation over the shown levels, which is constant outside them."""
    is_shown = np.array(shown)
    borrowed = borrow_levels(is_shown)
    levels = np.flatnonzero(is_shown)
    beyond = np.arange(4) - np.clip(np.arange(4), levels[0], levels[-1])
    expected = np.interp(np.arange(4), levels, np.array(log_odds)[levels]) + LN2 * beyond
    assert np.array(log_odds) @ borrowed.weights + borrowed.shift == pytest.approx(expected)


@given(st.lists(st.booleans(), min_size=4, max_size=4).filter(any))
def test_where_the_shown_rates_rise_with_the_level_all_do(shown: list[bool]) -> None:
    borrowed = borrow_levels(np.array(shown))
    assert (np.diff(np.array([-4.0, -3.5, -1.0, 0.5]) @ borrowed.weights + borrowed.shift) > 0).all()


def test_levels_one_and_three_by_hand() -> None:
    """Level 2 is half-way, level 4 has twice the odds of level 3; shown levels are as they were."""
    borrowed = borrow_levels(np.array([True, False, True, False]))
    found = np.array([-4.0, 99.0, -2.0, 99.0]) @ borrowed.weights + borrowed.shift
    assert found == pytest.approx([-4.0, -3.0, -2.0, -2.0 + LN2])


def test_there_is_nothing_to_borrow_from_where_no_level_was_shown() -> None:
    with pytest.raises(ValueError, match="no level was shown"):
        borrow_levels(np.zeros(4, dtype=np.bool_))
