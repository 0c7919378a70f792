"""Vectors of texts, worked out once and kept in a folder: warm-up, shipped encoder and every fold want the same."""

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
"""Texts of a file: what a run that was cut off has lost at most."""


class KeptVectors(SentenceEncoder):
    """A sentence encoder that reads a text only once."""

    def __init__(self, encoder: Path, device: torch.device, kept: Path) -> None:
        """Take up what the folder `kept` holds of this encoder; UsageError: `encoder` is no Hugging Face folder."""
        super().__init__(encoder, device)
        self._folder = kept / self.identity["sha256"][:12]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._places: dict[str, int] = {}
        self._blocks: list[NDArray[np.float32]] = []
        for path in sorted(self._folder.glob("*.safetensors")):
            with safe_open(path, framework="np") as file:
                self._take(json.loads(file.metadata()["texts"]), file.get_tensor("vectors"))

    def vectors(self, texts: Sequence[str], said: Callable[[int], None] = lambda done: None) -> NDArray[np.float32]:
        """float32[n, width], each of length 1; `said` hears how many texts are done."""
        if not texts:
            return super().vectors(texts, said)
        missing = [text for text in dict.fromkeys(texts) if text not in self._places]
        known = len(texts) - len(missing)
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            found = super().vectors(block)
            path = self._folder / f"{len(self._blocks):06d}.safetensors"
            aside = path.with_suffix(".part")
            save_file({"vectors": found}, aside, metadata={"texts": json.dumps(block)})
            aside.rename(path)
            self._take(block, found)
            said(known + start + len(block))
        return np.concatenate(self._blocks)[[self._places[text] for text in texts]]

    def _take(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        start = len(self._places)
        self._places.update({text: start + place for place, text in enumerate(texts)})
        self._blocks.append(vectors)
