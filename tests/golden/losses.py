"""The losses of the first batches of a seeded log, model by model.

`python -m tests.golden.losses` writes them anew, after a change that is meant to be numerical.
"""

import json
from pathlib import Path

import numpy as np
import torch

from model.registry import MODELS
from model.trainer import BatchScores, Trainer
from tests.kit.examples import random_examples, small_config

PATH = Path(__file__).with_name("losses.json")
PAGES = 64


def losses(model: str) -> list[float]:
    """The mean log loss of each batch of 4 pages, measured before it was learned from, in nats."""
    seen: list[float] = []

    def record(scores: BatchScores) -> None:
        labels = torch.from_numpy(scores.batch.labels.astype(np.float64))
        logits = torch.from_numpy(scores.logits)
        seen.append(round(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item(), 7))

    trainer = Trainer(small_config(model=model, batch_span=1e9), record)
    trainer.consume(random_examples(PAGES, seed=20), 0)
    return seen


if __name__ == "__main__":
    PATH.write_text(json.dumps({model: losses(model) for model in MODELS}, indent=1) + "\n")
