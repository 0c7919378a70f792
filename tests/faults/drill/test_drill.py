"""What the drill draws: ten different faults for a seed, and always the same ones."""

from tests.faults.drill.faults import DRAWN, FAULTS, draw


def test_a_seed_draws_ten_different_faults_again() -> None:
    assert draw(5) == draw(5)
    assert len(set(draw(5))) == DRAWN
    assert set(draw(5)) <= FAULTS.keys()
    assert draw(5) != draw(6)
