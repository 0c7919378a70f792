"""Drift: binned losses equal those of an online trainer and of frozen copies, computed independently."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench.quality.variants import Variant, trainer_config
from bench.world.drift import (
    BINS_AFTER,
    BINS_BEFORE,
    MODES,
    DriftBins,
    expected_log_loss,
    pool_bins,
    recovered_share,
    run_drift,
    unadjusted_recovered_share,
)
from bench.world.ground_truth import GroundTruth, make_log, read_truth
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.ops.settings.loader import Settings, load_settings
from prectr.state.errors import UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.records import Example
from prectr.stream.replay.runner import Replay
from prectr.stream.simulator import WorldSettings
from tests.kit.models.encoder import tiny_encoder

WORLD = WorldSettings(pages=240, seed=4, days=0.2, queries=30, items=1000, users=150, drift=True)
MODELS = (Variant(model="lr"), Variant(model="prectr-v2", track="T"))
BIN = 8


@pytest.fixture(scope="module")
def settings() -> Settings:
    small = {
        "embedding_rows": 4096,
        "wide_rows": 4096,
        "batch_span": "1d",
        "pair_cache_size": 4096,
        "exposed_pairs_bits": 4096,
    }
    return load_settings(None, small, environ={})


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("world")
    make_log(WORLD, folder)
    return read_truth(WORLD, folder)


class CollectingSink:
    """A sink that collects all examples."""

    def __init__(self) -> None:
        self.examples: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        self.examples += examples

    def flush(self) -> None:
        pass

    def save(self, folder: Path) -> None:
        pass

    def load(self, folder: Path) -> None:
        pass


@pytest.fixture(scope="module")
def examples(truth: GroundTruth, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    kept = CollectingSink()
    folder = tmp_path_factory.mktemp("examples")
    run = Replay([str(truth.log)], folder, settings.pipeline, config={}, sinks={"kept": kept}, label=LexicalLabeller())
    run.run(flush=True)
    run.close()
    return kept.examples


@pytest.mark.parametrize("variant", MODELS, ids=lambda one: one.name)
def test_losses_are_those_of_trainers_that_stop_at_the_change(
    truth: GroundTruth, examples: list[Example], settings: Settings, variant: Variant, tmp_path: Path
) -> None:
    config = trainer_config(settings, variant, tiny_encoder())
    page_of = [truth.page_of_request[example.request_id] for example in examples]
    size = config.batch_pages
    until = next(index for index, page in enumerate(page_of) if page >= truth.half) // size * size
    scored: list[BatchScores] = []
    online = Trainer(config, scored.append)
    online.consume(examples, 0)
    online.flush()
    frozen = Trainer(config)
    frozen.consume(examples[:until], 0)
    past = {example.query: example for example in examples[:until]}
    empty = {"query_stats": (0,) * 8, "query_decayed": ((0.0,) * 8,) * 3, "query_clicks": msgspec.Raw(b"\x90")}
    expected = {
        which: {mode: np.zeros(BINS_BEFORE + BINS_AFTER) for mode in (*MODES, "count")} for which in (True, False)
    }
    scores = [score for batch in scored for score in np.split(batch.logits, batch.batch.page_starts[1:-1])]
    changed = truth.world.click_weights.kind != truth.world.click_weights.second_half_kind
    for index, (example, page) in enumerate(zip(examples, page_of, strict=True)):
        number = (page - truth.half) // BIN + BINS_BEFORE
        if not 0 <= number < BINS_BEFORE + BINS_AFTER:
            continue
        old = past.get(example.query)
        as_of = {name: getattr(old, name) for name in empty} if old is not None else empty
        logits_by_mode = {"online": scores[index]}
        if page >= truth.half:
            logits_by_mode["frozen weights"] = frozen.score([example], position=None)
            logits_by_mode["frozen"] = frozen.score([msgspec.structs.replace(example, **as_of)], position=None)
        p = truth.shown.probability[truth.shown.of_page(page)]
        sums = expected[bool(changed[truth.query[page]])]
        sums["count"][number] += len(p)
        for mode, logits in logits_by_mode.items():
            q = 1 / (1 + np.exp(-logits))
            sums[mode][number] -= (p * np.log(q) + (1 - p) * np.log(1 - q)).sum()
    (found,) = run_drift(truth, tmp_path / "run", settings, [variant], tiny_encoder(), BIN)
    for which, bins in ((True, found.changed), (False, found.others)):
        assert bins.impressions == expected[which]["count"].astype(int).tolist()
        for mode in MODES:
            np.testing.assert_allclose(bins.loss[mode], expected[which][mode], rtol=1e-4, atol=1e-4, err_msg=mode)
    assert sum(found.changed.impressions) > 0
    assert not np.allclose(found.others.loss["online"][BINS_BEFORE:], found.others.loss["frozen weights"][BINS_BEFORE:])
    assert np.isclose(
        found.others.loss["frozen"][BINS_BEFORE:], found.others.loss["frozen weights"][BINS_BEFORE:]
    ).all() == (
        variant.model == "lr"  # lr reads no aggregates
    )


def test_world_without_drift_is_a_usage_error(truth: GroundTruth, settings: Settings, tmp_path: Path) -> None:
    calm = dataclasses.replace(
        truth, world=dataclasses.replace(truth.world, settings=msgspec.structs.replace(WORLD, drift=False))
    )
    with pytest.raises(UsageError, match="--drift"):
        run_drift(calm, tmp_path, settings, MODELS[:1], tiny_encoder())


def test_log_loss_of_the_truth_is_its_entropy() -> None:
    p = 0.3
    loss = expected_log_loss(np.array([math.log(p / (1 - p))]), np.array([p]))[0]
    assert loss == pytest.approx(-(p * math.log(p) + (1 - p) * math.log(1 - p)))


def test_recovered_share_is_pooled_before_the_ratio() -> None:
    def bins(frozen: float, weights: float, online: float, impressions: int) -> DriftBins:
        """Entropy 1 an impression; excess of 0.1 before the change."""
        count = BINS_BEFORE + BINS_AFTER

        def sums(before: float, after: float) -> list[float]:
            return [before * impressions] * BINS_BEFORE + [after * impressions] * BINS_AFTER

        losses = {"online": sums(1.1, online), "frozen weights": sums(0, weights), "frozen": sums(0, frozen)}
        return DriftBins(impressions=[impressions] * count, entropy=[float(impressions)] * count, loss=losses)

    alone = pool_bins([bins(1.5, 1.3, 1.2, 10)])
    assert alone.before == pytest.approx(0.1)
    plain = unadjusted_recovered_share(alone)
    assert plain["online"] == pytest.approx(np.full(BINS_AFTER, 0.75))
    assert plain["frozen weights"] == pytest.approx(np.full(BINS_AFTER, 0.5))
    assert plain["frozen"] == pytest.approx(np.zeros(BINS_AFTER))
    both = pool_bins([bins(1.5, 1.3, 1.2, 10), bins(1.2, 1.2, 1.2, 30)])
    # (10 · 0.2 + 30 · 0.2)/40 − 0.1 = 0.1 of (10 · 0.5 + 30 · 0.2)/40 − 0.1 = 0.175
    assert unadjusted_recovered_share(both)["online"] == pytest.approx(np.full(BINS_AFTER, 1 - 0.1 / 0.175))
    # On the other queries frozen loses 0.1 without training, and online gains 0.05 by training.
    others = pool_bins([bins(1.2, 1.2, 1.05, 10)])
    # (0.1 + 0.05) of (0.4 − 0.1)
    assert recovered_share(alone, others)["online"] == pytest.approx(np.full(BINS_AFTER, 1 - 0.15 / 0.3))
