"""Models of the relevance family by themselves, and pages whose users and queries have clicked."""

import math
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.smoothing import PriorRates
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.prectr.model import Prectr
from prectr.model.models.registry import MODELS, make_model
from prectr.model.text.encoder.artifact import load_encoder
from prectr.stream.records import Example, QueryClick, UserClick
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import random_examples, small_config

CPU = torch.device("cpu")
BOTH_MODELS = ("prectr", "prectr-v2")
MODELS_AND_ABLATIONS = [(name, "") for name in BOTH_MODELS] + [
    (name, part) for name in BOTH_MODELS for part in sorted(MODELS[name].switches)
]
"""Each model whole, and without each of its parts."""
PRIOR = math.log(0.1 / 0.9)


def clicked_examples(pages: int, seed: int = 0) -> list[Example]:
    """Pages whose users and queries have clicks of several levels and ages."""
    random = np.random.default_rng(seed + 100)
    return [_with_clicks(example, random) for example in random_examples(pages, seed=seed)]


def _with_clicks(example: Example, random: np.random.Generator) -> Example:
    def random_range(upper: int) -> range:
        return range(int(random.integers(0, upper)))

    def level() -> int:
        return int(random.integers(1, 5))

    def ts() -> int:
        return example.ts - int(random.integers(1, 10**9))

    own = [
        UserClick(
            ts(),
            "r",
            f"item {random.integers(40)}",
            f"query {random.integers(8)}",
            None,
            level(),
            "category 1",
            None,
            9.0,
        )
        for _ in random_range(6)
    ]
    of_query = [
        QueryClick(ts(), f"item {random.integers(40)}", level(), "category 2", None, 5.0) for _ in random_range(7)
    ]
    return msgspec.structs.replace(
        example,
        user_activity=len(own),
        history=msgspec.Raw(msgspec.msgpack.encode(own)),
        query_clicks=msgspec.Raw(msgspec.msgpack.encode(of_query)),
    )


class ModelHarness:
    """A model with what the trainer keeps beside it."""

    def __init__(
        self, name: str = "prectr-v2", without: str = "", *, config: TrainerConfig | None = None, **settings: object
    ) -> None:
        settings = {"encoder_share": 1.0, "embedding_scale": 0.3, "embedding_dim": 4, "hidden": (6, 5), **settings}
        self.config = config or small_config(model=name, without=(without,) if without else (), **settings)
        model = make_model(self.config, CPU)
        assert isinstance(model, Prectr)
        self.model = model
        self.parents = PriorRates(64, 20.0)

    def batch(self, examples: Sequence[Example]) -> Batch:
        return FeatureEncoder().encode(examples, self.parents, self.model.feature_needs)

    def train(self, examples: Sequence[Example]) -> ForwardOutput:
        batch = self.batch(examples)
        forward = self.model.forward(batch)
        self.model.step(self.model.gradients(batch, forward))
        self.parents.update(batch.category, batch.levels, batch.labels)
        return forward

    def trained(self) -> "ModelHarness":
        """The model after six batches; trained once for all tests with equal settings."""
        exported, parents = _trained_on_six_batches(self.config)
        self.model.load_training_state(copy_tensors(exported))
        self.parents.load_counts(parents.impressions.copy(), parents.clicks.copy())
        return self

    def training_batches(self) -> list[Batch]:
        """What `trained` has learned from."""
        return [self.batch(examples) for examples in _SIX_BATCHES]

    def score(self, examples: Sequence[Example]) -> Tensor:
        return self.model.score(self.batch(examples))

    def gradients(self, examples: Sequence[Example]) -> dict[str, float]:
        """The largest size of each dense parameter's gradient, by name."""
        batch = self.batch(examples)
        self.model.gradients(batch, self.model.forward(batch))
        return self._gradient_sizes()

    def gradient_of(self, examples: Sequence[Example], loss: str) -> dict[str, float]:
        """The same of one part of the loss alone."""
        self.model.zero_grad(set_to_none=False)
        self.model.forward(self.batch(examples)).losses[loss].backward()  # type: ignore[no-untyped-call]
        found = self._gradient_sizes()
        self.model.zero_grad(set_to_none=False)
        return found

    def _gradient_sizes(self) -> dict[str, float]:
        return {name: _max_abs(each.grad) for name, each in self.model.named_parameters() if each.requires_grad}


@cache
def _trained_on_six_batches(config: TrainerConfig) -> tuple[dict[str, Tensor], PriorRates]:
    learner = ModelHarness(config=config)
    for examples in _SIX_BATCHES:
        learner.train(examples)
    return copy_tensors(learner.model.training_state()), learner.parents


def _max_abs(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None or not gradient.numel() else float(gradient.abs().max())


PAGES = clicked_examples(5, seed=50)
_SIX_BATCHES = [clicked_examples(5, seed=seed + 1) for seed in range(6)]


def copy_tensors(exported: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in exported.items()}


def level_shares() -> np.ndarray:
    """How often each level is graded, one more of each."""
    counts = np.ones(4)
    for pair in load_encoder(tiny_encoder()).pairs:
        counts[pair.level - 1] += 1
    return counts / counts.sum()
