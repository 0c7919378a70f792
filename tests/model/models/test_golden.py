import json

import pytest

from prectr.model.models.registry import MODELS
from tests.model.golden.losses import DEBIAS, PATH, losses, variants

GOLDEN = json.loads(PATH.read_text())
ROUNDING = 2e-4
"""Processors round matrix products differently in the last bits, and Adam makes more of it."""


def test_every_model_and_every_switch_has_golden_losses() -> None:
    assert set(GOLDEN) == set(variants())
    assert len(GOLDEN) == len(MODELS) + sum(len(entry.switches) for entry in MODELS.values()) + len(DEBIAS)


def test_every_switch_changes_the_losses_by_more_than_rounding() -> None:
    for name in set(variants()) - set(MODELS):
        part = GOLDEN[name]
        whole = GOLDEN[str(variants()[name]["model"])][: len(part)]
        assert max(abs(one / other - 1) for one, other in zip(part, whole, strict=True)) > 4 * ROUNDING, name


@pytest.mark.parametrize("name", variants())
def test_losses_are_the_golden_ones(name: str) -> None:
    assert losses(name) == pytest.approx(GOLDEN[name], rel=ROUNDING)
