"""Encodings of a batch's texts: each distinct (query, title) once, from the encoder or from a cache."""

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
from prectr.model.layers.gradients import StateUpdate
from prectr.model.text.encoder.artifact import EncoderArtifact, load_encoder
from prectr.model.text.encoder.network import HIDDEN_SIZE, RelevanceEncoder
from prectr.model.text.encoder.tokens import Pair, PairTokenizer
from prectr.model.text.pair_cache import PairCache
from prectr.state.aggregates import LEVEL_COUNT
from prectr.state.errors import CheckpointError, Remedy

_CACHE_COLUMNS: Final = HIDDEN_SIZE + 1 + LEVEL_COUNT
_INFERENCE_BATCH: Final = 256
"""Pairs per forward pass without gradients; bounds the memory."""


@dataclass(frozen=True, slots=True)
class PairEncodings:
    """Encodings of the U distinct pairs of a batch of N impressions.

    pair_embedding: float32[U, 128]; carries a gradient for the pairs that the encoder is trained on.
    similarity: float32[U], e_q·e_i. inverse: int64[N], the pair of each impression. keys: uint64[U], of the pairs.
    anchor_index: int64[A], the pairs with stage-one logits: all if the encoder is frozen, else those that it is
    trained on. stage_one_logits: float32[A, 4], their level logits of stage one.
    cache_update: the update of the pair cache.
    """

    pair_embedding: Tensor
    similarity: Tensor
    inverse: Tensor
    keys: U64
    anchor_index: Tensor
    stage_one_logits: Tensor
    cache_update: StateUpdate


class CachedPairEncoder:
    """Encodes pairs with the frozen encoder of stage one or, in joint training, with the trained encoder.

    Which pairs the trained encoder learns from is a function of pair and step alone, and so independent of how a batch
    is sharded. Cached encodings are up to `pair_refresh` steps old.
    """

    def __init__(
        self,
        artifact: EncoderArtifact,
        config: TrainerConfig,
        device: torch.device,
        trained: RelevanceEncoder | None = None,
    ) -> None:
        """artifact: stage one's encoder. trained: the encoder in joint training; None: stage one's is used."""
        self._stage_one = artifact.network.to(device)
        self._trained = trained
        self._tokenizer: PairTokenizer = artifact.tokenizer
        self._sha256 = artifact.sha256
        self._train_share = config.encoder_share if trained is not None else 0.0
        self._refresh_steps = config.pair_refresh
        self._device = device
        self._hash = HashCache()
        self._cache = PairCache(config.pair_cache_size, _CACHE_COLUMNS, device)
        self.step = 0
        """Batches applied."""

    def encode(self, batch: Batch, *, learn: bool) -> PairEncodings:
        """Encode the texts of a batch. learn: with gradients for the sampled pairs, and with a cache update."""
        keys, first, inverse = np.unique(self._keys(batch), return_index=True, return_inverse=True)
        pairs = [batch.texts[index] for index in first.tolist()]
        slots, cached_at = self._cache.find(keys)
        sampled = self._sampled_for_training(keys)
        is_cached = cached_at >= 0
        is_current = is_cached & ~sampled
        if self._trained is not None:
            is_current &= self.step - cached_at <= self._refresh_steps
        encodings = self._cache.read(slots)
        if self._trained is None:
            encodings = self._refresh_rows(encodings, ~is_cached, pairs, self._stage_one)
            anchor_index, stage_one = np.arange(len(keys)), encodings[:, -LEVEL_COUNT:]
        else:
            encodings = self._refresh_rows(encodings, ~is_current & ~sampled, pairs, self._trained)
            encodings = self._refresh_rows(encodings, sampled, pairs, self._trained, learn=learn)
            anchor_index = np.flatnonzero(sampled & learn)
            stage_one = self._refresh_rows(encodings.detach(), sampled & learn, pairs, self._stage_one)[
                anchor_index, -LEVEL_COUNT:
            ]
        cache_update = self._cache.empty_update()
        if learn and not is_current.all():
            stale = np.flatnonzero(~is_current)
            cache_update = self._cache.updates_for(keys[stale], encodings.detach().index_select(0, self._tensor(stale)))
        return PairEncodings(
            pair_embedding=encodings[:, :HIDDEN_SIZE],
            similarity=encodings[:, HIDDEN_SIZE],
            inverse=self._tensor(inverse),
            keys=keys,
            anchor_index=self._tensor(anchor_index),
            stage_one_logits=stage_one,
            cache_update=cache_update,
        )

    def empty_update(self) -> StateUpdate:
        """An empty update of the cache."""
        return self._cache.empty_update()

    def apply(self, update: StateUpdate) -> None:
        """Update the cache; called once per step."""
        self.step += 1
        self._cache.apply(update, self.step)

    def state_dict(self) -> dict[str, Tensor]:
        """The cache, the step, and the digest of the encoder."""
        return {
            **self._cache.state_dict(),
            "step": torch.tensor([self.step], dtype=torch.int64),
            "encoder": torch.frombuffer(bytearray.fromhex(self._sha256), dtype=torch.uint8),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned. CheckpointError: it was trained with another encoder."""
        saved_sha256 = state["encoder"].numpy().tobytes().hex()
        if saved_sha256 != self._sha256:
            raise CheckpointError(
                f"the checkpoint was trained with encoder {saved_sha256[:12]}…, not {self._sha256[:12]}…",
                Remedy.SAME_ENCODER,
            )
        self._cache.load_state_dict(state)
        self.step = int(state["step"].item())

    def _keys(self, batch: Batch) -> U64:
        titles = np.array([self._hash(title) for _, title in batch.texts], dtype=np.uint64)
        return cross(batch.query[batch.page_of], titles)

    def _sampled_for_training(self, keys: U64) -> NDArray[np.bool_]:
        hashes = mix(keys ^ mix(np.array([self.step], dtype=np.uint64))) >> np.uint64(11)
        return hashes.astype(np.float64) * 2.0**-53 < self._train_share

    def _refresh_rows(
        self,
        encodings: Tensor,
        mask: NDArray[np.bool_],
        pairs: Sequence[Pair],
        network: RelevanceEncoder,
        *,
        learn: bool = False,
    ) -> Tensor:
        """float32[U, 133]: the encodings, replaced by fresh ones of the network where mask bool[U] is set."""
        indices = np.flatnonzero(mask)
        if not len(indices):
            return encodings
        selected = [pairs[index] for index in indices.tolist()]
        if learn:
            fresh = self._encode_pairs(network, selected)
        else:
            with torch.no_grad():
                parts = [
                    self._encode_pairs(network, selected[start : start + _INFERENCE_BATCH])
                    for start in range(0, len(selected), _INFERENCE_BATCH)
                ]
            fresh = torch.cat(parts)
        return encodings.index_copy(0, self._tensor(indices), fresh)

    def _tensor(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _encode_pairs(self, network: RelevanceEncoder, pairs: Sequence[Pair]) -> Tensor:
        """float32[B, 133]: representation, e_q·e_i, level logits."""
        encoded = network(self._tokenizer.encode(pairs).to(self._device))
        similarity = (encoded.query_vector * encoded.item_vector).sum(dim=1, keepdim=True)
        return torch.cat([encoded.pair_embedding, similarity, encoded.level_logits], dim=1)


def open_encoder(config: TrainerConfig) -> EncoderArtifact:
    """Load the encoder that the configuration names. CheckpointError: it is missing or corrupt."""
    return load_encoder(None if config.encoder in {"auto", "shipped"} else Path(config.encoder))


def with_text_features(batch: Batch, encodings: PairEncodings, *, infers_levels: bool) -> Batch:
    """Add stage one's text features to a batch; infers_levels: replace the logged levels by P(level)."""
    levels = torch.softmax(encodings.stage_one_logits, dim=1).index_select(0, encodings.inverse).double().cpu().numpy()
    similarity = encodings.similarity.detach().index_select(0, encodings.inverse).double().cpu().numpy()
    return replace(batch, similarity=similarity, level_weights=levels if infers_levels else batch.level_weights)
