import json

import pytest

from model.registry import MODELS
from tests.golden.losses import PATH, losses

GOLDEN = json.loads(PATH.read_text())


def test_every_model_has_golden_losses() -> None:
    assert set(GOLDEN) == set(MODELS)


@pytest.mark.parametrize("model", GOLDEN)
def test_losses_are_the_golden_ones(model: str) -> None:
    # Processors round matrix products differently in the last bits.
    assert losses(model) == pytest.approx(GOLDEN[model], rel=2e-4)
