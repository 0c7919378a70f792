import math
from collections import defaultdict

import numpy as np
import pytest

from prectr.model.training.trainer import BatchScores, Trainer
from prectr.stream.records import Example, decode_page
from tests.kit.models.examples import random_examples, small_config


class PlainFtrl:
    """FTRL-Proximal over named features in dicts, from the paper's algorithm 1."""

    def __init__(self) -> None:
        self.n: dict[str, float] = defaultdict(float)
        self.z: dict[str, float] = defaultdict(float)

    def alpha_beta(self, feature: str) -> tuple[float, float]:
        return (0.3, 1.0) if feature.split("=", maxsplit=1)[0] in ("bias", "position", "level") else (0.3, 5.0)

    def weight(self, feature: str) -> float:
        alpha, beta = self.alpha_beta(feature)
        return -self.z[feature] / ((beta + math.sqrt(self.n[feature])) / alpha)

    def update(self, gradients: dict[str, float]) -> None:
        for feature, gradient in gradients.items():
            weight = self.weight(feature)
            alpha, _ = self.alpha_beta(feature)
            sigma = (math.sqrt(self.n[feature] + gradient**2) - math.sqrt(self.n[feature])) / alpha
            self.z[feature] += gradient - sigma * weight
            self.n[feature] += gradient**2


def _plain_logits(batches: list[list[Example]]) -> list[float]:
    model, logits = PlainFtrl(), []
    for batch in batches:
        gradients: dict[str, float] = defaultdict(float)
        for example in batch:
            page = decode_page(example.page)
            for item, label in zip(page.items, example.labels, strict=True):
                features = [
                    "bias=",
                    f"position={item.position}",
                    f"level={item.relevance}",
                    f"user={page.user_id}",
                    f"query={page.query}",
                    f"item={item.item_id}",
                ]
                logit = math.log(0.1 / 0.9) + sum(map(model.weight, features))
                logits.append(logit)
                for feature in features:
                    gradients[feature] += 1 / (1 + math.exp(-logit)) - label
        model.update(gradients)
    return logits


def test_lr_is_ftrl_over_named_features_in_plain_dicts() -> None:
    examples = random_examples(40, seed=5)
    measured: list[BatchScores] = []
    # Large enough that no two of the few ids share a row.
    trainer = Trainer(small_config(model="lr", batch_span=1e9, wide_rows=1 << 20), measured.append)
    trainer.consume(examples, 0)
    expected = _plain_logits([examples[start : start + 4] for start in range(0, 40, 4)])
    assert np.concatenate([scores.logits for scores in measured]) == pytest.approx(expected, abs=1e-5)
