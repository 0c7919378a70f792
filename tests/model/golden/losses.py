"""The losses of the first batches of a seeded log, model by model, whole and without each of its parts.

`python -m tests.model.golden.losses [NAME…]` rewrites them (all, or those named), after a change that is meant to be
numerical. The text encoder is one of the test kit, since the shipped one may change.
"""

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch

from prectr.model.models.registry import MODELS
from prectr.model.training.trainer import BatchScores, Trainer
from tests.kit.models.examples import random_examples, small_config

PATH: Final = Path(__file__).with_name("losses.json")
PAGES: Final = 64
PAGES_OF_PARTS: Final = 32
"""Enough for a model without one of its components to differ from the whole one."""

DEBIAS: Final = ("hinge", "prior_adjustment")
"""The forms of exposure debias besides the default."""


def variants() -> dict[str, dict[str, object]]:
    """The settings of everything that has golden losses, by name."""
    found: dict[str, dict[str, object]] = {}
    for model, entry in MODELS.items():
        found[model] = {"model": model}
        for part in sorted(entry.switches):
            found[f"{model} without {part}"] = {"model": model, "without": (part,)}
    for form in DEBIAS:
        found[f"prectr-v2 with {form}"] = {"model": "prectr-v2", "debias": form}
    return found


def losses(name: str) -> list[float]:
    """The mean log loss of each batch of 4 pages, measured before it was learned from, in nats."""
    seen: list[float] = []

    def record(scores: BatchScores) -> None:
        labels = torch.from_numpy(scores.batch.labels.astype(np.float64))
        logits = torch.from_numpy(scores.logits)
        seen.append(round(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item(), 7))

    trainer = Trainer(small_config(batch_span=1e9, **variants()[name]), record)
    trainer.consume(random_examples(PAGES, seed=20)[: PAGES if name in MODELS else PAGES_OF_PARTS], 0)
    return seen


if __name__ == "__main__":
    golden = json.loads(PATH.read_text())
    made = {name: losses(name) for name in sys.argv[1:] or variants()}
    PATH.write_text(json.dumps({name: made.get(name, golden.get(name)) for name in variants()}, indent=1) + "\n")
