"""An instrumented trainer learns what a plain one learns, and its windows add up to its quality."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from prectr.model.features.smoothing import PRIOR_LOG_ODDS
from prectr.model.layers.gradients import Gradients, SparseGradient, StateUpdate
from prectr.model.models.online_model import ForwardOutput
from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.sketch import QualitySketch
from prectr.model.quality.windows import QualityWindow
from prectr.model.training import instrumentation
from prectr.model.training.instrumentation import PHASES, QUALITY_WINDOWS, InstrumentedTrainer, TimedModel, TrainerStats
from prectr.model.training.trainer import Trainer
from prectr.state.errors import CheckpointError
from prectr.stream.events.contract import ResultPage
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.threads import run_on_ranks

EXAMPLES = random_examples(60, seed=7)


def segments(windows: dict[int, QualityWindow]) -> dict[str, QualitySketch]:
    return {
        name: QualitySketch.total(QualitySketch.decode(each.segments[position]) for each in windows.values())
        for position, name in enumerate(SEGMENTS)
    }


@pytest.mark.parametrize("model", ["lr", "wide-deep+"])
def test_instrumentation_changes_no_weight_and_no_metric(model: str) -> None:
    plain, instrumented = Trainer(small_config(model=model)), InstrumentedTrainer(small_config(model=model))
    for trainer in (plain, instrumented):
        trainer.consume(EXAMPLES, 0)
        trainer.flush()
    assert instrumented.weights_sha256() == plain.weights_sha256()
    assert instrumented.quality.state() == plain.quality.state()


def test_quality_windows_of_several_runs_sum_to_the_quality_to_the_last_bit(tmp_path: Path) -> None:
    found: dict[int, QualityWindow] = {}
    trainer = InstrumentedTrainer(small_config())
    for number, first in enumerate(range(0, 60, 15)):
        trainer.consume(EXAMPLES[first : first + 15], 0)
        (tmp_path / str(number)).mkdir()
        trainer.save(tmp_path / str(number))
        found |= {each.sequence: each for each in trainer.quality_windows.sealed.pending}
        # The next process knows only what the checkpoint holds; what is lost in between it does again.
        trainer.consume(EXAMPLES[first + 15 : first + 20], 0)
        trainer = InstrumentedTrainer(small_config())
        trainer.load(tmp_path / str(number))
    trainer.flush()
    found |= {each.sequence: each for each in trainer.quality_windows.seal().pending}
    assert segments(found) == {name: trainer.quality.segment(name) for name in SEGMENTS}
    assert sum(sketch.pages for sketch in segments(found).values()) == 60


def test_of_several_ranks_the_first_counts_all_pages_and_the_others_keep_nothing() -> None:
    alone = InstrumentedTrainer(small_config(batch_pages=5))
    alone.consume(EXAMPLES, 0)

    def train(ranks: object) -> InstrumentedTrainer:
        trainer = InstrumentedTrainer(small_config(batch_pages=5), ranks)  # type: ignore[arg-type]
        trainer.consume(EXAMPLES, 0)
        return trainer

    first, second = run_on_ranks(2, train)
    expected = {each.sequence: each for each in alone.quality_windows.seal().pending}
    found = {each.sequence: each for each in first.quality_windows.seal().pending}
    assert found.keys() == expected.keys()
    assert {name: sketch.pages for name, sketch in segments(found).items()} == {
        name: sketch.pages for name, sketch in segments(expected).items()
    }
    assert second.quality_windows.seal().pending == ()


def test_a_checkpoint_of_an_uninstrumented_trainer_is_restored(tmp_path: Path) -> None:
    plain = Trainer(small_config())
    plain.consume(EXAMPLES[:30], 0)
    plain.save(tmp_path)
    instrumented = InstrumentedTrainer(small_config())
    instrumented.load(tmp_path)
    assert instrumented.pages_trained == plain.pages_trained
    assert instrumented.quality_windows.seal().pending == ()


@pytest.mark.parametrize("content", [b"", b"\x93\x01", msgspec.msgpack.encode({"waiting": []})])
def test_corrupt_quality_windows_are_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    trainer = InstrumentedTrainer(small_config())
    trainer.consume(EXAMPLES, 0)
    trainer.save(tmp_path)
    (tmp_path / QUALITY_WINDOWS).write_bytes(content)
    with pytest.raises(CheckpointError, match=QUALITY_WINDOWS):
        InstrumentedTrainer(small_config()).load(tmp_path)


def test_losses_and_times_are_those_of_the_learning() -> None:
    trainer = InstrumentedTrainer(small_config(model="lr"))
    assert trainer.stats.gradient_norm is None
    trainer.consume(EXAMPLES, 0)
    stats = trainer.stats
    whole = trainer.quality.summary()
    assert stats.impressions == whole.impressions
    # The only part of lr's loss is the click loss, and what is measured is what is learned from.
    assert whole.log_loss is not None
    assert stats.losses == {"click": pytest.approx(whole.log_loss * whole.impressions, rel=1e-5)}
    assert stats.latest_close == whole.last_close
    assert stats.batches == trainer.batches
    assert set(stats.phase_seconds) == set(PHASES)
    # On a CPU the device is busy during all phases but collating.
    assert stats.device_busy_seconds == pytest.approx(
        sum(stats.phase_seconds[step] for step in PHASES if step != "collate")
    )
    assert all(seconds > 0 for seconds in stats.phase_seconds.values())


def test_the_norm_is_that_of_the_gradient_by_hand() -> None:
    """With all weights zero every click has the prior's probability, and a feature's gradient is the sum of p - y."""
    trainer = InstrumentedTrainer(small_config(model="lr", batch_span=1e9))
    trainer.consume(EXAMPLES[:4], 0)
    gradient: Counter[tuple[str, object]] = Counter()
    probability = 1 / (1 + math.exp(-PRIOR_LOG_ODDS))
    for example in EXAMPLES[:4]:
        items = msgspec.msgpack.decode(example.page, type=ResultPage).items
        for position, (item, level, label) in enumerate(zip(items, example.levels, example.labels, strict=True), 1):
            ids = {"user": example.user_id, "query": example.query, "item": item.item_id}
            for feature in {"bias": 0, "position": position, "level": level, **ids}.items():
                gradient[feature] += probability - label
    assert trainer.stats.gradient_norm == pytest.approx(math.hypot(*gradient.values()), rel=1e-5)


def test_state_updates_are_not_part_of_the_gradient_norm() -> None:
    class Model:
        """Has a gradient of norm 5 and a huge state update."""

        feature_needs = None

        def gradients(self, batch: object, forward: ForwardOutput) -> Gradients:
            trained = SparseGradient(torch.tensor([1]), torch.tensor([[3.0]]))
            update = StateUpdate(torch.tensor([1]), torch.tensor([[1e9]]))
            return Gradients(1, torch.tensor([4.0]), {"weights": trained}, {"exposed_pairs": update})

        def step(self, gradients: Gradients) -> None:
            """Nothing is learned."""

    stats = TrainerStats()
    timed: Any = TimedModel(Model(), stats, torch.device("cpu"))  # type: ignore[arg-type]
    batch: Any = SimpleNamespace(impressions=1)
    forward = ForwardOutput(torch.zeros(1), {"click": torch.tensor(0.5)})
    timed.step(timed.gradients(batch, forward))
    assert stats.gradient_norm == 5.0


@pytest.mark.parametrize("debias", ["hinge", "prior_adjustment+soft"])
def test_hard_negatives_and_those_within_their_margin_are_counted(debias: str) -> None:
    trainer = InstrumentedTrainer(small_config(model="prectr-v2", debias=debias, hinge_margin=0.5))
    trainer.consume(EXAMPLES[:32], 0)
    counts, impressions = trainer.stats.counts, trainer.stats.impressions
    # Untrained, scores hardly differ: most are nearer than half a unit of log-odds. At the lowest level there is none.
    assert 0 < counts["margin_violations"] <= counts["hard_negatives"] < impressions
    wide = InstrumentedTrainer(
        small_config(model="prectr-v2", debias=debias, hinge_margin=1000.0, hinge_truncation=1e9)
    )
    wide.consume(EXAMPLES[:32], 0)
    assert wide.stats.counts["margin_violations"] == wide.stats.counts["hard_negatives"]
    if debias == "prior_adjustment+soft":
        # The margin is no part of that loss, so the negatives are the same.
        assert wide.stats.counts["hard_negatives"] == counts["hard_negatives"]


def test_a_model_without_hard_negatives_counts_none() -> None:
    trainer = InstrumentedTrainer(small_config(model="lr"))
    trainer.consume(EXAMPLES, 0)
    assert trainer.stats.counts == {}


def test_a_cuda_device_is_busy_for_as_long_as_its_own_clock_says_once_it_is_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Mark:
        """A point in the device's work: `at` is when it gets there, in ms."""

        def __init__(self, at: float) -> None:
            self.at = at

        def query(self) -> bool:
            return self.at <= now

        def elapsed_time(self, end: "Mark") -> float:
            return end.at - self.at

    class Model:
        feature_needs = None

        def forward(self, batch: object) -> str:
            return "scores"

    now = 100.0
    # Three calls, that the device works on for 40, 50 and 100 ms.
    marks = iter([Mark(10), Mark(50), Mark(50), Mark(100), Mark(150), Mark(250), Mark(999)])
    monkeypatch.setattr(instrumentation, "_record_event", lambda: next(marks))
    stats = TrainerStats()
    timed: Any = TimedModel(Model(), stats, torch.device("cuda"))  # type: ignore[arg-type]
    for busy in (0.040, 0.090, 0.090):
        timed.forward(object())
        # The third is still being computed.
        assert stats.device_busy_seconds == pytest.approx(busy)
    now = 250.0
    timed._cuda_timer.stop()
    assert stats.device_busy_seconds == pytest.approx(0.190)
