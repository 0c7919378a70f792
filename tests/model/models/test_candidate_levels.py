"""Candidates of levels that were never shown, in every model: what they borrow, by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from prectr.model.features.smoothing import Floats
from prectr.model.models.registry import MODELS
from prectr.model.training.trainer import Trainer
from prectr.stream.records import Example
from tests.kit.models.examples import random_examples, small_config

LN2 = math.log(2)
PAGES = 120


def _with_levels(example: Example, levels: Sequence[int]) -> Example:
    return msgspec.structs.replace(example, levels=bytes(levels))


def _trained(model: str, shown: Sequence[int]) -> Trainer:
    """Trained on pages of the levels `shown` alone, which the model is given; few are clicked."""
    trainer = Trainer(small_config(model=model, level_source="logged", batch_span=1e9))
    for number, example in enumerate(random_examples(PAGES, seed=3)):
        levels = [shown[(number + place) % len(shown)] for place in range(len(example.levels))]
        labels = bytes(int(number % 5 == 0 and level == max(shown)) for level in levels)
        trainer.consume([msgspec.structs.replace(_with_levels(example, levels), labels=labels)], 0)
    return trainer


PAGE = random_examples(PAGES + 1, seed=3)[-1]


def _scores(trainer: Trainer, level: int, position: int | None = 1) -> Floats:
    return trainer.score([_with_levels(PAGE, [level] * len(PAGE.levels))], position)


@pytest.mark.parametrize("model", MODELS)
def test_levels_that_were_never_shown_are_scored_by_those_that_were(model: str) -> None:
    """Of levels 2 and 4: level 1 has half the odds of level 2, and level 3 is half-way in log-odds."""
    trainer = _trained(model, [2, 4])
    level_2, level_4 = _scores(trainer, 2), _scores(trainer, 4)
    assert (level_4 > level_2 + 0.1).all()
    # P(level) of a supplied level is 1 − 3e-6 in a mixture.
    assert _scores(trainer, 1) == pytest.approx(level_2 - LN2, abs=1e-3)
    assert _scores(trainer, 3) == pytest.approx((level_2 + level_4) / 2, abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_a_level_above_all_that_were_shown_is_scored_above_them(model: str) -> None:
    trainer = _trained(model, [3])
    level_3 = _scores(trainer, 3)
    assert _scores(trainer, 4) == pytest.approx(level_3 + LN2, abs=1e-3)
    assert _scores(trainer, 1) == pytest.approx(level_3 - 2 * LN2, abs=1e-3)


@pytest.mark.parametrize("model", ["lr", "dnn", "wide-deep", "wide-deep+"])
def test_a_page_as_it_was_shown_is_scored_as_it_is_learned_from(model: str) -> None:
    """Nothing is borrowed where a level is measured and learned: its weight starts at zero, the prior."""
    trainer = _trained(model, [4])
    measured: list[Floats] = []
    trainer._on_scores = lambda scores: measured.append(scores.logits)
    shown = _with_levels(PAGE, [1] * len(PAGE.levels))
    expected = trainer.score([shown], position=None)
    trainer.consume([shown], 0)
    trainer.flush()
    assert measured[-1][-len(expected) :] == pytest.approx(expected, abs=1e-6)
    assert np.abs(expected - _scores(trainer, 4, None)).max() > 0.01


@pytest.mark.parametrize("model", ["lr", "wide-deep+"])
def test_inferred_levels_move_to_those_that_were_learned(model: str) -> None:
    """P(level) of (0.5, 0.1, 0.4, 0) where levels 3 and 4 were learned: all of it at level 3, less ln 2 a level."""
    trainer = _trained(model, [3, 4])
    batch = trainer._collate([_with_levels(PAGE, [3] * len(PAGE.levels))]).at_position(1)
    mixed = replace(batch, level_weights=np.tile([0.5, 0.1, 0.4, 0.0], (batch.impressions, 1)))
    expected = trainer._model.score(batch).numpy() - (0.5 * 2 + 0.1) * LN2
    assert trainer._model.score(mixed).numpy() == pytest.approx(expected, abs=1e-5)
    # Most likely of a learned level: scored as it is, as on a page of the log.
    likely = replace(batch, level_weights=np.tile([0.3, 0.0, 0.7, 0.0], (batch.impressions, 1)))
    assert trainer._model.score(likely).tolist() == trainer._model.score(replace(likely, exposed=True)).tolist()


def test_a_model_that_has_learned_nothing_borrows_nothing() -> None:
    trainer = Trainer(small_config(model="lr"))
    assert _scores(trainer, 1) == pytest.approx(math.log(0.1 / 0.9))
    assert not trainer._model.learned_levels().any()
