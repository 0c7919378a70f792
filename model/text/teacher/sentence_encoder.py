"""Vectors of single texts from a sentence encoder in a local folder, such as all-MiniLM-L6-v2."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from prectr.model.text.encoder.length_bucketing import length_sorted_batches
from prectr.model.text.teacher.local_model import model_sha256, open_model, open_tokenizer

_MAX_TOKENS: Final = 128
_BATCH_SIZE: Final = 64


class SentenceEncoder:
    """A transformer with mean pooling over the last layer, normalised to length 1."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Open a Hugging Face folder; UsageError: it holds no model."""
        self._tokenizer = open_tokenizer(folder)
        self._model = open_model(folder, "AutoModel", device)
        self._device = device
        self.identity = {"model": folder.name, "sha256": model_sha256(folder), "max_tokens": str(_MAX_TOKENS)}

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        """float32[n, width], rows of length 1; on_progress: receives the number of texts done."""
        embeddings = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        done = 0
        for indices in length_sorted_batches(np.array([len(text) for text in texts], dtype=np.int64), _BATCH_SIZE):
            tokens = self._tokenizer(
                [texts[index] for index in indices],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                hidden = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].to(hidden.dtype)
            mean = torch.einsum("bl,blw->bw", mask, hidden) / mask.sum(dim=1, keepdim=True)
            embeddings[indices] = functional.normalize(mean, dim=1).cpu().numpy()
            done += len(indices)
            on_progress(done)
        return embeddings
