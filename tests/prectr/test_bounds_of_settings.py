"""Promise: every numeric setting, at its least and at its greatest value, gives finite results."""

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import prectr.model.text.encoder.pretrain as pretrain_module
from prectr.model.config import MODEL_NAMES, PretrainConfig, TrainerConfig
from prectr.model.models.registry import MODELS
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.network import make_encoder
from prectr.model.text.teacher.labels import FORMAT, LabelManifest, SoftLabels, texts_of
from prectr.model.training.checkpoint import TENSORS
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.state.errors import ConfigError
from prectr.state.setting import fields_of
from prectr.stream.config import PipelineConfig
from prectr.stream.records import Example
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.teachers import PAIRS
from tests.kit.stages.replays import replay_to_end
from tests.prectr.short_log import PAGES, short_log

TRAINED_PAGES = 14
"""Four batches: what the first has made infinite, the others read."""
AFFORDABLE = {
    "threads": 2,
    "embedding_rows": 1 << 16,
    "embedding_dim": 512,
    "hidden": 1 << 12,
    "wide_rows": 1 << 16,
    "prior_rates_size": 1 << 16,
    "pair_cache_size": 1 << 16,
    "rehearsal_pairs": 256,
    "exposure_sketch_size": 1 << 16,
    "exposed_pairs_bits": 1 << 16,
    "partitions": 16,
    "vocab_size": 1 << 12,
    "batch_size": 64,
    "tune_epochs": 4,
    "distil_epochs": 4,
    "held_out": 0.5,
}
"""Settings whose greatest value only takes more memory, time or data than a test has."""


def corners(config: type) -> list[tuple[str, object]]:
    """Every numeric setting of a configuration with each of its bounds."""
    found: list[tuple[str, object]] = []
    for name, field in fields_of(config).items():
        if field.kind in (int, float, tuple[int, ...], tuple[float, ...]):
            numbers = (field.setting.ge, AFFORDABLE.get(name, field.setting.le))
            found += [(name, [number] if isinstance(field.default, tuple) else number) for number in numbers]
    return found


def model_with(setting: str) -> dict[str, object]:
    """A model that reads the setting."""
    if setting.startswith("wide_ftrl"):
        return {"model": "wide-deep"}
    if setting.startswith("ftrl"):
        return {"model": "lr"}
    return {"model": "prectr-v2", "debias": "hinge" if setting.startswith("hinge") else "prior_adjustment+soft"}


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return random_examples(TRAINED_PAGES)


@pytest.mark.parametrize(("setting", "value"), corners(TrainerConfig))
def test_a_trainer_setting_at_its_bounds_trains_with_finite_results(
    setting: str, value: object, examples: list[Example], tmp_path: Path
) -> None:
    scores: list[BatchScores] = []
    trainer = Trainer(small_config(**model_with(setting), **{setting: value}), scores.append)
    trainer.consume(examples, examples[-1].closes_at)
    trainer.flush()
    trainer.save(tmp_path)
    assert trainer.pages_trained == TRAINED_PAGES
    assert all(np.isfinite(batch.logits).all() for batch in scores)
    assert np.isfinite(trainer.score(examples)).all()
    for name, tensor in load_file(tmp_path / TENSORS).items():
        assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize(("setting", "value"), corners(PretrainConfig))
def test_a_pretraining_setting_at_its_bounds_gives_a_finite_encoder(
    setting: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain_module, "make_encoder", partial(make_encoder, layers=1))
    values = {"vocab_size": 200, "batch_size": 16, "tune_epochs": 2, "distil_epochs": 2, "held_out": 0.25}
    config = msgspec.convert(values | {setting: value}, PretrainConfig)
    graded = [GradedPair(query, title, 1 + index % 4) for index, (query, title) in enumerate(PAIRS)]
    made = pretrain_module.pretrain(graded, config, unlabelled=PAIRS, labels=teacher_labels())
    assert np.isfinite([each.loss for each in made.epochs]).all()
    assert all(torch.isfinite(tensor).all() for tensor in made.network.state_dict().values())


def teacher_labels() -> SoftLabels:
    """A teacher's labels and vectors of `PAIRS`."""
    random = np.random.default_rng(1)
    log_levels = np.log(random.dirichlet([1.0] * 4, len(PAIRS))).astype(np.float32)
    texts = {text: index for index, text in enumerate(texts_of(PAIRS))}
    vectors = random.normal(size=(len(texts), 40)).astype(np.float32)
    manifest = LabelManifest(format=FORMAT, teacher={"model": "made up"}, pairs=len(PAIRS), pairs_sha256="", part=9)
    return SoftLabels(log_levels, texts, vectors, manifest)


@pytest.mark.parametrize(("setting", "value"), corners(PipelineConfig))
def test_a_pipeline_setting_at_its_bounds_accounts_for_every_page(setting: str, value: object, tmp_path: Path) -> None:
    log = short_log(tmp_path)
    result = replay_to_end(
        [log], tmp_path / "run", config=msgspec.convert({"partitions": 1, setting: value}, PipelineConfig)
    )
    assert result.pages == result.outcomes.pages.received == PAGES
    assert result.outcomes.clicks.received == PAGES


@pytest.mark.parametrize(
    ("setting", "value"), [("position_ftrl_alpha", 0.0), ("smoothing", float("nan")), ("dense_lr", float("inf"))]
)
def test_a_trainer_made_in_python_refuses_what_the_command_line_refuses(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{setting}: {value} is out of range"):
        Trainer(small_config(**{setting: value}))


def test_the_models_that_can_be_set_are_those_of_the_registry() -> None:
    assert tuple(MODELS) == MODEL_NAMES
