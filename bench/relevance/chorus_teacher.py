"""The teacher of the shipped encoder: a sentence encoder turned into a cross-encoder and fine-tuned on graded pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.length_bucketing import length_bucketed_batches
from prectr.model.text.encoder.schedule import ScheduledAdamW
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.local_model import open_tokenizer
from prectr.model.text.teacher.teacher import MAX_TOKENS
from prectr.state.aggregates import LEVEL_COUNT

_BATCH: Final = 32
_WARM_UP_LEARNING_RATE: Final = 1e-4
_FINE_TUNE_LEARNING_RATE: Final = 5e-5
_FINE_TUNE_EPOCHS: Final = 3
_LABEL_SMOOTHING: Final = 0.05
"""Raters agree on at most 19 of 20 grades, and a less confident teacher has more informative labels."""

OnProgress = Callable[[float, str], None]
"""Receives progress from 0 to 1, and a short status text."""


def warm_up(
    folder: Path, out: Path, pairs: Sequence[Pair], cosines: NDArray[np.float32], on_progress: OnProgress
) -> None:
    """Turn a sentence encoder into a cross-encoder, trained to predict the cosine of a pair's vectors from both texts.

    cosines: float32[n], of the vectors of each pair's texts. One epoch. It uses no grades, so all folds share it.
    """
    model, tokenizer = _load_model(folder, seed=1)
    targets = torch.from_numpy(cosines).clamp(0.0, 1.0)
    level_values = torch.arange(LEVEL_COUNT) / (LEVEL_COUNT - 1)

    def loss(logits: Tensor, indices: NDArray[np.int64]) -> Tensor:
        near = torch.softmax(logits, dim=1) @ level_values
        return 10.0 * functional.mse_loss(near, targets[indices])

    _train(
        model, tokenizer, pairs, loss, epochs=1, learning_rate=_WARM_UP_LEARNING_RATE, seed=1, on_progress=on_progress
    )
    _save(model, tokenizer, out)


def fine_tune(folder: Path, out: Path, graded: Sequence[GradedPair], *, seed: int, on_progress: OnProgress) -> None:
    """Train a cross-encoder with four outputs on the levels of graded pairs: cross-entropy, three epochs."""
    model, tokenizer = _load_model(folder, seed)
    levels = torch.tensor([pair.level - 1 for pair in graded])

    def loss(logits: Tensor, indices: NDArray[np.int64]) -> Tensor:
        return functional.cross_entropy(logits, levels[indices], label_smoothing=_LABEL_SMOOTHING)

    pairs = [pair.pair for pair in graded]
    _train(
        model,
        tokenizer,
        pairs,
        loss,
        epochs=_FINE_TUNE_EPOCHS,
        learning_rate=_FINE_TUNE_LEARNING_RATE,
        seed=seed,
        on_progress=on_progress,
    )
    _save(model, tokenizer, out)


def _load_model(folder: Path, seed: int) -> tuple[Any, Any]:
    tokenizer = open_tokenizer(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=LEVEL_COUNT)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, local_files_only=True, dtype=torch.float32
    )
    return model, tokenizer


def _train(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    loss_of: Callable[[Tensor, NDArray[np.int64]], Tensor],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_progress: OnProgress,
) -> None:
    lengths = np.array([len(query) + len(title) for query, title in pairs], dtype=np.int64)
    steps = epochs * -(-len(pairs) // _BATCH)
    schedule = ScheduledAdamW(model.parameters(), lr=learning_rate, steps=steps)
    rng = np.random.default_rng([seed, 5])
    torch.manual_seed(seed)
    model.train()
    done = 0
    for _ in range(epochs):
        for indices in length_bucketed_batches(lengths, _BATCH, rng):
            tokens = tokenizer(
                [pairs[index][0] for index in indices],
                [pairs[place][1] for place in indices],
                padding=True,
                truncation="longest_first",
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            value = schedule.step(loss_of(model(**tokens).logits, indices), "the teacher")
            done += 1
            on_progress(done / steps, f"loss {value:.3f}")
    model.eval()


def _save(model: Any, tokenizer: Any, out: Path) -> None:
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
