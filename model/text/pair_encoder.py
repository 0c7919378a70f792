"""What a batch's texts say: each distinct (query, title) once, from the encoder or from the cache of what it said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, HashCache, cross, mix
from prectr.model.layers.gradients import RowGradients
from prectr.model.text.encoder.artifact import EncoderFolder, load_encoder
from prectr.model.text.encoder.network import LEVELS, WIDTH, RelevanceEncoder
from prectr.model.text.encoder.tokens import Pair, PairTokenizer
from prectr.model.text.pair_cache import PairCache

_COLUMNS: Final = WIDTH + 1 + LEVELS
_AT_ONCE: Final = 256
"""Pairs that go through the encoder together where no gradient is wanted; bounds the memory."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the encoder says of the U distinct pairs of a batch of N impressions.

    pair: float32[U, 128], their representations; those that the encoder learns from carry a gradient.
    similarity: float32[U], e_q·e_i. index: int64[N], the pair of each impression. keys: uint64[U], of the pairs.
    anchored: int64[A], the pairs of which is known what stage one said, and stage_one: float32[A, 4], that: level
    logits. All of them with the encoder as stage one left it, else those that it learns from.
    kept: what is to be remembered.
    """

    pair: Tensor
    similarity: Tensor
    index: Tensor
    keys: U64
    anchored: Tensor
    stage_one: Tensor
    kept: RowGradients


class PairReader:
    """Reads pairs with an encoder as stage one left it, and with the same as it is trained on, if it is.

    Which pairs the trained encoder learns from is a function of pair and step alone, so that it is the same however
    a batch is spread over ranks. What is read from the cache was said up to `pair_refresh` steps ago.
    """

    def __init__(
        self,
        folder: EncoderFolder,
        config: TrainerConfig,
        device: torch.device,
        trained: RelevanceEncoder | None = None,
    ) -> None:
        """Read with the folder's encoder. trained: the one that goes on learning; None: the folder's is all."""
        self._stage_one = folder.network.to(device)
        self._trained = trained
        self._tokenizer: PairTokenizer = folder.tokenizer
        self._sha256 = folder.sha256
        self._share = config.encoder_share if trained is not None else 0.0
        self._refresh = config.pair_refresh
        self._device = device
        self._hash = HashCache()
        self._cache = PairCache(config.pair_slots, _COLUMNS, device)
        self.step = 0
        """Batches learned from."""

    def read(self, batch: Batch, *, learn: bool) -> Reading:
        """Read the texts of a batch. learn: with gradients for some, and with what is to be kept."""
        keys, first, index = np.unique(self._keys(batch), return_index=True, return_inverse=True)
        pairs = [batch.texts[place] for place in first.tolist()]
        slots, since = self._cache.find(keys)
        learned = self._learned(keys)
        known = since >= 0
        current = known & ~learned
        if self._trained is not None:
            current &= self.step - since <= self._refresh
        said = self._cache.read(slots)
        if self._trained is None:
            said = self._overlaid(said, ~known, pairs, self._stage_one)
            anchored, stage_one = np.arange(len(keys)), said[:, -LEVELS:]
        else:
            said = self._overlaid(said, ~current & ~learned, pairs, self._trained)
            said = self._overlaid(said, learned, pairs, self._trained, learn=learn)
            anchored = np.flatnonzero(learned & learn)
            stage_one = self._overlaid(said.detach(), learned & learn, pairs, self._stage_one)[anchored, -LEVELS:]
        kept = self._cache.nothing()
        if learn and not current.all():
            anew = np.flatnonzero(~current)
            kept = self._cache.to_keep(keys[anew], said.detach().index_select(0, self._tensor(anew)))
        return Reading(
            pair=said[:, :WIDTH],
            similarity=said[:, WIDTH],
            index=self._tensor(index),
            keys=keys,
            anchored=self._tensor(anchored),
            stage_one=stage_one,
            kept=kept,
        )

    def nothing(self) -> RowGradients:
        """What is to be remembered of no batch."""
        return self._cache.nothing()

    def keep(self, kept: RowGradients) -> None:
        """Remember what has been read, once a step."""
        self.step += 1
        self._cache.keep(kept, self.step)

    def export(self) -> dict[str, Tensor]:
        """The cache, the step, and which encoder it is."""
        return {
            **self._cache.export(),
            "step": torch.tensor([self.step], dtype=torch.int64),
            "encoder": torch.frombuffer(bytearray.fromhex(self._sha256), dtype=torch.uint8),
        }

    def restore(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it was another encoder's."""
        found = exported["encoder"].numpy().tobytes().hex()
        if found != self._sha256:
            raise ValueError(
                f"trained with encoder {found[:12]}…, not {self._sha256[:12]}…: name that one by --encoder"
            )
        self._cache.restore(exported)
        self.step = int(exported["step"].item())

    def _keys(self, batch: Batch) -> U64:
        titles = np.array([self._hash(title) for _, title in batch.texts], dtype=np.uint64)
        return cross(batch.query[batch.page_of], titles)

    def _learned(self, keys: U64) -> NDArray[np.bool_]:
        drawn = mix(keys ^ mix(np.array([self.step], dtype=np.uint64))) >> np.uint64(11)
        return drawn.astype(np.float64) * 2.0**-53 < self._share

    def _overlaid(
        self,
        said: Tensor,
        wanted: NDArray[np.bool_],
        pairs: Sequence[Pair],
        network: RelevanceEncoder,
        *,
        learn: bool = False,
    ) -> Tensor:
        """What was said, float32[U, 133], with what the network says now of the pairs that are wanted."""
        places = np.flatnonzero(wanted)
        if not len(places):
            return said
        some = [pairs[place] for place in places.tolist()]
        if learn:
            anew = self._say(network, some)
        else:
            with torch.no_grad():
                parts = [self._say(network, some[start : start + _AT_ONCE]) for start in range(0, len(some), _AT_ONCE)]
            anew = torch.cat(parts)
        return said.index_copy(0, self._tensor(places), anew)

    def _tensor(self, places: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(places).to(self._device)

    def _say(self, network: RelevanceEncoder, pairs: Sequence[Pair]) -> Tensor:
        """float32[B, 133]: representation, e_q·e_i, level logits."""
        encoded = network(self._tokenizer.encode(pairs).to(self._device))
        similarity = (encoded.query * encoded.item).sum(dim=1, keepdim=True)
        return torch.cat([encoded.pair, similarity, encoded.level_logits], dim=1)


def open_encoder(config: TrainerConfig) -> EncoderFolder:
    """The encoder that the configuration names. CheckpointError: there is none, or it is damaged."""
    return load_encoder(None if config.encoder in {"auto", "shipped"} else Path(config.encoder))


def told(batch: Batch, reading: Reading, *, infers_levels: bool) -> Batch:
    """The batch with what stage one says of its texts; the logged levels are hidden where levels are inferred."""
    levels = torch.softmax(reading.stage_one, dim=1).index_select(0, reading.index).double().cpu().numpy()
    similarity = reading.similarity.detach().index_select(0, reading.index).double().cpu().numpy()
    return replace(batch, similarity=similarity, level_weights=levels if infers_levels else batch.level_weights)
