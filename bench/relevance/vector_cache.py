"""Sentence vectors cached in a folder, since warm-up, shipped encoder and all folds need the same ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from prectr.model.text.teacher.sentence_encoder import SentenceEncoder

_BLOCK: Final = 1_024
"""Texts per file, and so the most that an interrupted run loses."""


class CachedSentenceEncoder(SentenceEncoder):
    """A sentence encoder that encodes each text only once."""

    def __init__(self, encoder: Path, device: torch.device, cache_dir: Path) -> None:
        """Load what `cache_dir` holds for this encoder.

        Raises:
            UsageError: `encoder` is not a Hugging Face folder.
        """
        super().__init__(encoder, device)
        self._folder = cache_dir / self.identity["sha256"][:12]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._row_of_text: dict[str, int] = {}
        self._blocks: list[NDArray[np.float32]] = []
        for path in sorted(self._folder.glob("*.safetensors")):
            with safe_open(path, framework="np") as file:
                self._add_block(json.loads(file.metadata()["texts"]), file.get_tensor("vectors"))

    def encode(
        self, texts: Sequence[str], on_progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        """Encode texts to unit vectors, float32[n, width]; on_progress receives the number of texts done."""
        if not texts:
            return super().encode(texts, on_progress)
        missing = [text for text in dict.fromkeys(texts) if text not in self._row_of_text]
        known = len(texts) - len(missing)
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            found = super().encode(block)
            path = self._folder / f"{len(self._blocks):06d}.safetensors"
            staging = path.with_suffix(".part")
            save_file({"vectors": found}, staging, metadata={"texts": json.dumps(block)})
            staging.rename(path)
            self._add_block(block, found)
            on_progress(known + start + len(block))
        return np.concatenate(self._blocks)[[self._row_of_text[text] for text in texts]]

    def _add_block(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        start = len(self._row_of_text)
        self._row_of_text.update({text: start + row for row, text in enumerate(texts)})
        self._blocks.append(vectors)
